//! hyper's spawning, on the thread that asks: nothing of ours needs to be `Send`.

/// Runs what hyper spawns (one small task a request body) on the calling thread's `LocalSet`; it ends with the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
