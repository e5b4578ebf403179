//! Pods as network namespaces, for tests of redirected traffic. Need root; removed when dropped.

use std::{fs::File, os::fd::AsFd, process};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    /// A namespace with a loopback interface.
    pub(crate) fn new(pod: &str) -> Self {
        let namespace = Self { name: format!("mesh-test-{}-{pod}", process::id()) };
        run("ip", &["netns", "add", &namespace.name]);
        namespace.run("ip link set lo up");
        namespace
    }

    /// Joins two pods by a wire of their own.
    pub(crate) fn join(&self, own: &str, other: &Self, others: &str) {
        let name = |suffix| format!("mt{}{suffix}", process::id() % 10_000_000);
        let ends = [(self, own, name("a")), (other, others, name("b"))];
        run("ip", &["link", "add", &ends[0].2, "type", "veth", "peer", "name", &ends[1].2]);
        for (pod, address, interface) in ends {
            run("ip", &["link", "set", &interface, "netns", &pod.name]);
            pod.run(&format!("ip address add {address}/24 dev {interface}"));
            pod.run(&format!("ip link set {interface} up"));
        }
    }

    /// Runs a command of plain words in here.
    pub(crate) fn run(&self, command: &str) {
        let words: Vec<&str> = command.split(' ').collect();
        run("ip", &[["netns", "exec", &self.name].as_slice(), &words].concat());
    }

    /// Moves this thread, and all that it starts from now on, in here.
    pub(crate) fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("a namespace");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("the right to enter it");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = process::Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = process::Command::new(program).args(arguments).output().expect("it can be run");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
