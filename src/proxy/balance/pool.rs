//! The endpoints of one target, and the choice among them.

use std::{
    cell::{Cell, RefCell},
    fmt,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use rand::{Rng, RngExt};

use super::{
    ewma::PeakEwma,
    health::{Health, Verdict},
};
use crate::model::endpoint::Endpoint;

/// `T` is what reaching an endpoint takes: its connections.
pub(crate) struct Pool<T> {
    members: Vec<Rc<Member<T>>>,
}

pub(crate) struct Member<T> {
    pub(crate) endpoint: Endpoint,
    pub(crate) reach: T,
    load: RefCell<PeakEwma>,
    pending: Cell<usize>,
    health: Cell<Health>,
}

/// A place at an endpoint, until dropped.
pub(crate) struct Lease<T>(Rc<Member<T>>);

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { members: Vec::new() }
    }
}

impl<T> Pool<T> {
    /// Takes over a new set. An endpoint that stays as it was keeps its connections and what was learned of it.
    pub(crate) fn update(&mut self, endpoints: &[Endpoint], now: Instant, mut reach: impl FnMut(&Endpoint) -> T) {
        let mut known = std::mem::take(&mut self.members);
        self.members = endpoints
            .iter()
            .map(|endpoint| match known.iter().position(|member| member.endpoint == *endpoint) {
                Some(index) => known.swap_remove(index),
                None => Rc::new(Member::new(endpoint.clone(), reach(endpoint), now)),
            })
            .collect();
    }

    /// Two at random among those in rotation, and of these the one where one more request costs less. Those in `tried` are
    /// left out; if nobody else is in rotation, those that are ejected get their chance.
    pub(crate) fn pick(&self, now: Instant, rng: &mut impl Rng, tried: &[SocketAddr]) -> Option<Lease<T>> {
        let member = match self.members.as_slice() {
            [] => None,
            // By far the commonest case: no dice to roll.
            [only] if tried.is_empty() => Some(only),
            members => two_choices(members, |m| m.is_candidate(tried) && !m.health.get().is_ejected(), now, rng)
                .or_else(|| two_choices(members, |m| m.is_candidate(tried), now, rng)),
        };
        member.map(|member| Lease::new(Rc::clone(member)))
    }

    pub(crate) fn members(&self) -> &[Rc<Member<T>>] {
        &self.members
    }
}

fn two_choices<'a, T>(
    members: &'a [Rc<Member<T>>],
    allowed: impl Fn(&Member<T>) -> bool,
    now: Instant,
    rng: &mut impl Rng,
) -> Option<&'a Rc<Member<T>>> {
    let count = members.iter().filter(|member| allowed(member)).count();
    let nth = |n| members.iter().filter(|member| allowed(member)).nth(n);
    if count < 2 {
        return nth(0);
    }
    let first = rng.random_range(0..count);
    let second = (first + rng.random_range(1..count)) % count;
    let (first, second) = (nth(first)?, nth(second)?);
    Some(if second.cost(now) < first.cost(now) { second } else { first })
}

impl<T> Member<T> {
    fn new(endpoint: Endpoint, reach: T, now: Instant) -> Self {
        let load = RefCell::new(PeakEwma::new(now));
        Self { endpoint, reach, load, pending: Cell::new(0), health: Cell::default() }
    }

    fn is_candidate(&self, tried: &[SocketAddr]) -> bool {
        !tried.contains(&self.endpoint.addr)
    }

    fn cost(&self, now: Instant) -> f64 {
        self.load.borrow().load(self.pending.get(), now)
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.health.get().is_ejected()
    }

    /// It answered a request.
    pub(crate) fn answered(&self) {
        self.with_health(Health::answered);
    }

    /// A probe got through.
    pub(crate) fn probed(&self) {
        self.with_health(Health::probed);
    }

    /// It could not be connected to.
    pub(crate) fn connect_failed(&self) -> Verdict {
        self.with_health(Health::connect_failed)
    }

    /// It broke off a request.
    pub(crate) fn reset(&self) -> Verdict {
        self.with_health(Health::reset)
    }

    /// How long to wait before probing it.
    pub(crate) fn probe_wait(&self) -> Duration {
        self.health.get().wait()
    }

    fn with_health<R>(&self, change: impl FnOnce(&mut Health) -> R) -> R {
        let mut health = self.health.get();
        let result = change(&mut health);
        self.health.set(health);
        result
    }
}

impl<T> Lease<T> {
    fn new(member: Rc<Member<T>>) -> Self {
        member.pending.set(member.pending.get() + 1);
        Self(member)
    }

    pub(crate) fn member(&self) -> &Rc<Member<T>> {
        &self.0
    }

    /// The head of a response came `sent` ago was the request's start.
    pub(crate) fn answered(&self, sent: Instant, now: Instant) {
        self.0.load.borrow_mut().observe(now.saturating_duration_since(sent), now);
        self.0.answered();
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        self.0.pending.set(self.0.pending.get() - 1);
    }
}

impl<T> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.0.endpoint.addr).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::rt::clock;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint { addr: SocketAddr::from(([10, 0, 0, 1], port)), identity: None, workload: None, pod: None }
    }

    fn pool(ports: &[u16], now: Instant) -> Pool<()> {
        let mut pool = Pool::default();
        pool.update(&ports.iter().map(|port| endpoint(*port)).collect::<Vec<_>>(), now, |_| ());
        pool
    }

    #[test]
    fn a_slow_endpoint_gets_less_than_a_tenth() {
        let (mut now, mut rng) = (clock::now(), StdRng::seed_from_u64(7));
        let pool = pool(&[1, 2, 3], now);
        let mut counts: HashMap<u16, u32> = HashMap::new();
        let mut open: Vec<(Instant, Instant, Lease<()>)> = Vec::new();
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            open.retain(|(sent, due, lease)| {
                if *due <= now {
                    lease.answered(*sent, *due);
                }
                *due > now
            });
            let lease = pool.pick(now, &mut rng, &[]).expect("three endpoints");
            let port = lease.member().endpoint.addr.port();
            *counts.entry(port).or_default() += 1;
            let latency = Duration::from_millis(if port == 1 { 50 } else { 5 });
            open.push((now, now + latency, lease));
        }
        assert!(counts[&1] < 1000, "{counts:?}");
    }

    #[test]
    fn an_ejected_endpoint_gets_nothing_while_another_is_up() {
        let (now, mut rng) = (clock::now(), StdRng::seed_from_u64(7));
        let pool = pool(&[1, 2], now);
        assert_eq!(pool.members()[0].connect_failed(), Verdict::Eject);
        for _ in 0..100 {
            assert_eq!(pool.pick(now, &mut rng, &[]).map(|l| l.member().endpoint.addr.port()), Some(2));
        }
        let tried = [pool.members()[1].endpoint.addr];
        assert!(pool.pick(now, &mut rng, &tried).is_some(), "a last resort");
    }

    #[test]
    fn an_unchanged_endpoint_keeps_its_place() {
        let now = clock::now();
        let mut pool = pool(&[1, 2], now);
        let kept = Rc::clone(&pool.members()[1]);
        pool.update(&[endpoint(2), endpoint(3)], now, |_| ());
        assert!(pool.members().iter().any(|member| Rc::ptr_eq(member, &kept)));
        assert_eq!(pool.members().len(), 2);
    }
}
