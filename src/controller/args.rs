//! `mesh controller`: flags and variables, and what is made of them.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// The directory that stands for the cluster: Services and EndpointSlices as YAML or JSON.
    #[arg(long, env = "MESH_SOURCE", value_name = "DIR")]
    pub(crate) source: PathBuf,
    /// What `--local=NAME` calls this mesh; the directory's name by default.
    #[arg(long, env = "MESH_NAME")]
    pub(crate) name: Option<String>,
    /// Where proxies reach the API. Port 0 takes the port of the last run if it is free, else any.
    #[arg(long, env = "MESH_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// The trust domain of all identities.
    #[arg(long, env = "MESH_TRUST_DOMAIN", value_name = "DOMAIN", default_value = "local", value_parser = trust_domain)]
    pub(crate) trust_domain: String,
    /// How long a workload's certificate is valid, in seconds or like `24h`, `30m`, `10s`.
    #[arg(long, env = "MESH_LEAF_LIFETIME", value_name = "TIME", default_value = "24h", value_parser = lifetime)]
    pub(crate) leaf_lifetime: Duration,
    /// End with the parent process, and remove the directory at the end.
    #[arg(long, env = "MESH_EPHEMERAL")]
    pub(crate) ephemeral: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) source: PathBuf,
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) trust_domain: String,
    pub(crate) leaf_lifetime: Duration,
    pub(crate) ephemeral: bool,
}

impl Args {
    /// With `name` where none was given.
    pub(crate) fn config(self, name: String) -> Config {
        let Self { source, name: given, listen, trust_domain, leaf_lifetime, ephemeral } = self;
        Config { source, name: given.unwrap_or(name), listen, trust_domain, leaf_lifetime, ephemeral }
    }
}

fn trust_domain(text: &str) -> Result<String, String> {
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
    if text.is_empty() || text.len() > 255 || !text.bytes().all(valid) || matches!(text, "." | "..") {
        return Err("expected lower-case letters, digits, `-`, `.` and `_` (SPIFFE ID, section 2.1)".into());
    }
    Ok(text.to_owned())
}

/// Between a second, for tests, and a year, the issuer's own lifetime.
fn lifetime(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let unit = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => 0,
    };
    let seconds = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).unwrap_or_default();
    match seconds {
        1..=31_536_000 => Ok(Duration::from_secs(seconds)),
        _ => Err("expected a time like `24h`, `30m` or `10s`, at most a year".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_have_units_and_bounds() {
        assert_eq!(lifetime("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(lifetime("10"), Ok(Duration::from_secs(10)));
        for bad in ["", "0", "1d", "-1s", "h", "99999999h", "18446744073709551615h"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
    }
}
