//! The `adit` binary: flags and files into configuration, output for people and machines.
//!
//! Reading order: [`cli`] (the commands), [`commands`] (one verb each), [`config`] (files into the types the
//! program uses), [`role`] (a running gateway or agent, signals and exit codes), [`output`] (all printing).

mod access;
mod cli;
mod commands;
mod config;
mod control_client;
mod documents;
mod duration;
mod egress;
mod error;
mod filter;
mod flags;
mod generate;
mod interface;
mod lazily;
mod logging;
mod logins;
mod nofile;
mod output;
mod private_file;
mod reference;
mod reload;
mod role;
mod serve;
mod signals;
mod tcp_upstreams;
mod token;
mod upstreams;
mod version;
mod yaml;

#[cfg(test)]
mod pages;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match commands::completion::answer() {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(message) => return output::usage(&message),
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => {
            return commands::neighbours::answer(&message).map_or_else(
                || output::usage(&message),
                |error| {
                    output::error(&error);
                    error.exit_code()
                },
            );
        }
    };
    match start(cli) {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            error.exit_code()
        }
    }
}

/// Has the system's allocator keep up to 2 MiB of freed memory for the next round of buffers, instead of giving it back
/// and taking it again a thousand times a second: glibc doubles the size of the first large block that is freed and
/// takes that as its bound (mallopt(3), `M_MMAP_THRESHOLD`). Elsewhere this does nothing.
fn keep_freed_memory() {
    const BLOCK: usize = 1024 * 1024;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(BLOCK)));
}

/// Prepares the process, runs the command, and leaves whatever still blocks behind.
fn start(cli: cli::Cli) -> Result<ExitCode, error::CliError> {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return Err(error::CliError::failure("cannot prepare TLS").because("a provider was installed twice"));
    }
    nofile::raise();
    keep_freed_memory();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| error::CliError::failure("cannot start the runtime").caused_by(&cause))?;
    let ended = runtime.block_on(cli.run());
    runtime.shutdown_background();
    ended
}
