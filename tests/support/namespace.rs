//! Pods as network namespaces, joined by veth pairs, for tests of redirected traffic. Need root; removed when dropped,
//! and what a killed run left behind is removed by the next one.

use std::{
    fs::{self, File},
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    path::Path,
    process::{self, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::time::Instant;

const PREFIX: &str = "mesh-test-";
const CONNECT: Duration = Duration::from_secs(10);

/// Namespaces of this test binary so far: tests run side by side.
static COUNT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    /// A namespace with a loopback interface.
    pub(crate) fn new(pod: &str) -> Self {
        sweep();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = Self { name: format!("{PREFIX}{}-{number}-{pod}", process::id()) };
        run("ip", &["netns", "add", &namespace.name]);
        // Else a new interface says nothing over IPv6 for a second, while it looks for others with its address.
        namespace.run("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0");
        namespace.run("ip link set lo up");
        namespace
    }

    /// Joins two pods by a wire of their own; the interface in each is named after the other end. Addresses have their
    /// prefix's length.
    pub(crate) fn join(&self, interface: &str, own: &[String], other: &Self, others: &[String]) {
        let remote = format!("{interface}-peer");
        self.run(&format!("ip link add {interface} type veth peer name {remote} netns {}", other.name));
        for (pod, interface, addresses) in [(self, interface, own), (other, remote.as_str(), others)] {
            for address in addresses {
                pod.run(&format!("ip address add {address} dev {interface}"));
            }
            pod.run(&format!("ip link set {interface} up"));
        }
    }

    /// Runs a command of plain words in here.
    pub(crate) fn run(&self, command: &str) -> String {
        let words: Vec<&str> = command.split(' ').collect();
        run("ip", &[["netns", "exec", &self.name].as_slice(), &words].concat())
    }

    /// Loads rules of nftables.
    pub(crate) fn nft(&self, rules: &str) {
        let mut command = process::Command::new("ip");
        command.args(["netns", "exec", &self.name, "nft", "-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("ip can be run");
        child.stdin.take().expect("a pipe").write_all(rules.as_bytes()).expect("nft reads its rules");
        let output = child.wait_with_output().expect("a child of ours");
        assert!(output.status.success(), "nft: {}{rules}", String::from_utf8_lossy(&output.stderr));
    }

    /// Moves this thread, and all that it starts from now on, in here.
    pub(crate) fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("a namespace");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("the right to enter it");
    }

    /// Listens in here: a socket stays where it was made, whoever uses it.
    pub(crate) fn listen(&self, addr: &str) -> TcpListener {
        self.within(|| TcpListener::bind(addr).unwrap_or_else(|error| panic!("cannot listen on {addr}: {error}")))
    }

    /// A connection made in here, and when it was begun.
    pub(crate) fn connect(&self, addr: SocketAddr) -> (TcpStream, Instant) {
        self.within(|| {
            let begun = Instant::now();
            let stream = TcpStream::connect_timeout(&addr, CONNECT);
            (stream.unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}")), begun)
        })
    }

    fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.enter();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join()).expect("no panic in the namespace")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = process::Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Removes namespaces of test processes that are gone.
fn sweep() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            // Another test may have been faster.
            let _ = process::Command::new("ip").args(["netns", "del", &name]).stderr(Stdio::null()).status();
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = process::Command::new(program).args(arguments).output().expect("it can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} ({}): {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
