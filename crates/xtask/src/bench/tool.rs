//! The programs of the benchmark itself: the upstream, the load wrk cannot make, and a slow path.
//!
//! Each runs in a process of its own, so that its processor time is not taken for anybody else's, and says what
//! it saw as one line of JSON. They run in the release profile: a slow load generator measures itself.

mod bulk;
mod delay;
mod http;
mod idle;
mod load;
mod upstream;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the tools read at once, and write at once.
const CHUNK: usize = 256 << 10;

const USAGE: &str = "bench tool upstream ADDR
bench tool load ADDR HOST PATH CONNECTIONS SECONDS kept|close|RATE
bench tool sweep ADDR HOST SECONDS SIZE...
bench tool bulk ADDR HOST down|up BYTES STREAMS
bench tool idle ADDR HOST COUNT
bench tool delay ADDR TO MILLISECONDS MEGABITS";

/// Runs one tool; the arguments are those of [`USAGE`] after the word `tool`.
///
/// # Errors
/// When the arguments are wrong, or an address cannot be used.
pub(super) fn run(args: &[String]) -> Result<()> {
    allow_many_files()?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["upstream", addr] => upstream::run(address(addr)?),
        ["load", addr, host, path, connections, seconds, pace] => {
            let ask = load::Ask { addr: address(addr)?, host, path, pace: pace.parse()? };
            print(&load::run(&ask, number(connections)?, self::seconds(seconds)?)?)
        }
        ["sweep", addr, host, seconds, sizes @ ..] => {
            let sizes = sizes.iter().map(|size| number(size)).collect::<Result<Vec<u64>>>()?;
            print(&load::sweep(address(addr)?, host, self::seconds(seconds)?, &sizes)?)
        }
        ["bulk", addr, host, direction, bytes, streams] => {
            let is_up = match *direction {
                "up" => true,
                "down" => false,
                other => bail!("`{other}` is no direction; say down or up"),
            };
            print(&bulk::run(address(addr)?, host, is_up, number(bytes)?, number(streams)?)?)
        }
        ["idle", addr, host, count] => idle::run(address(addr)?, host, number(count)?),
        ["delay", addr, to, millis, megabits] => {
            let path = delay::Path::new(Duration::from_millis(number(millis)?), number(megabits)?);
            delay::run(address(addr)?, address(to)?, path)
        }
        _ => bail!("the benchmark's own tools are:\n{USAGE}"),
    }
}

/// A figure's name and value, as the harness reads it.
type Figures = Vec<(String, f64)>;

#[expect(clippy::unnecessary_wraps, reason = "the last step of tools that return results")]
fn print(figures: &Figures) -> Result<()> {
    let object: serde_json::Map<String, serde_json::Value> =
        figures.iter().map(|(name, value)| (name.clone(), (*value).into())).collect();
    println!("{}", serde_json::Value::Object(object));
    Ok(())
}

fn address(text: &str) -> Result<SocketAddr> {
    text.parse().with_context(|| format!("`{text}` is no address with a port"))
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N> {
    text.parse().ok().with_context(|| format!("`{text}` is not a number that fits here"))
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds: f64 = number(text)?;
    Duration::try_from_secs_f64(seconds).with_context(|| format!("`{text}` is no duration"))
}

/// Raises the limit on open files as far as this process may.
fn allow_many_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("cannot raise the limit on open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tool_is_answered_with_the_list() {
        let error = run(&["hammer".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("bench tool upstream"), "{error}");
        let args = ["bulk", "127.0.0.1:1", "h", "sideways", "1", "1"].map(str::to_owned);
        assert!(run(&args).unwrap_err().to_string().contains("sideways"));
    }
}
