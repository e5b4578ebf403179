//! What the kernel says of this process (proc(5)), under the names Prometheus clients use.

use std::fs;

/// A reading; a figure that /proc would not give is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Process {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    /// Unix time.
    pub(crate) start_seconds: Option<f64>,
}

impl Process {
    pub(crate) fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let page = rustix::param::page_size() as u64;
        let open_fds = fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as u64);
        Self { open_fds, ..Self::parse(&stat, &boot, ticks, page) }
    }

    fn parse(stat: &str, boot: &str, ticks: f64, page: u64) -> Self {
        // The command name, in parentheses, may hold spaces and parentheses of its own.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        // proc(5) counts from 1 and begins before the command name: field N is at N - 3 here.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let booted = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok());
        Self {
            cpu_seconds: field(14).zip(field(15)).map(|(user, system)| (user + system) as f64 / ticks),
            resident_bytes: field(24).map(|pages| pages * page),
            open_fds: None,
            start_seconds: booted.zip(field(22)).map(|(boot, start)| boot as f64 + start as f64 / ticks),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_past_a_hostile_command_name() {
        let stat = "7 (a) b (c) R 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 4 0 12300 9000000 2500 1844674407";
        let process = Process::parse(stat, "cpu 1 2\nbtime 1700000000\n", 100.0, 4096);
        let expected = Process {
            cpu_seconds: Some(2.0),
            resident_bytes: Some(2500 * 4096),
            open_fds: None,
            start_seconds: Some(1_700_000_123.0),
        };
        assert_eq!(process, expected);
    }

    #[test]
    fn this_process_has_all_figures() {
        let process = Process::read();
        assert!(process.cpu_seconds.is_some() && process.start_seconds.is_some());
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 0) && process.open_fds.is_some_and(|fds| fds > 2));
    }
}
