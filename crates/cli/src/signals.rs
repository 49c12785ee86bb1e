//! The signals that end a role.

use crate::error::CliError;

/// What asked the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// `kill`, systemd, Kubernetes.
    Terminate,
}

impl Signal {
    /// The exit code of a process that stops at once because of it.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }

    /// Its name in logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }
}

#[cfg(unix)]
fn listen(kind: tokio::signal::unix::SignalKind) -> Result<tokio::signal::unix::Signal, CliError> {
    tokio::signal::unix::signal(kind)
        .map_err(|cause| CliError::failure("cannot listen for signals").caused_by(&cause))
}

/// Listens for both signals from the moment it is made.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    /// Once somebody wants to hear of it.
    #[cfg(unix)]
    hangup: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    /// Starts listening.
    #[cfg(unix)]
    pub(crate) fn install() -> Result<Self, CliError> {
        use tokio::signal::unix::SignalKind;

        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Self { interrupt: listen(interrupt)?, terminate: listen(terminate)?, hangup: None })
    }

    /// From now on SIGHUP asks for a reload instead of ending the process.
    #[cfg(unix)]
    pub(crate) fn take_hangups(&mut self) -> Result<(), CliError> {
        self.hangup = Some(listen(tokio::signal::unix::SignalKind::hangup())?);
        Ok(())
    }

    /// From now on SIGHUP asks for a reload; there is none on this system.
    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "there is a signal on other systems")]
    pub(crate) const fn take_hangups(&mut self) -> Result<(), CliError> {
        Ok(())
    }

    /// Waits for the next signal; `None` is a SIGHUP, if they are taken. Cancel safe.
    #[cfg(unix)]
    pub(crate) async fn next_or_hangup(&mut self) -> Option<Signal> {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Some(Signal::Interrupt),
            _ = self.terminate.recv() => Some(Signal::Terminate),
            () = hangup => None,
        }
    }

    /// Waits for the next signal; there is no SIGHUP on this system. Cancel safe.
    #[cfg(not(unix))]
    pub(crate) async fn next_or_hangup(&mut self) -> Option<Signal> {
        Some(self.next().await)
    }

    /// Waits for the next signal. Cancel safe.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }

    /// Waits for the next signal. Cancel safe.
    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Interrupt
    }
}
