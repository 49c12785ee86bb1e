//! The receiving half: what each frame does to the streams.

use std::task::Waker;
use std::time::Duration;

use adit_proto::frame::{self, FrameHeader, HEADER_LEN, Kind};
use adit_proto::header::StreamHeader;
use adit_proto::limits;
use adit_proto::reason::Reason;
use bytes::{Buf as _, Bytes, BytesMut};

use super::row::Row;
use super::{Gone, MARK, Mux, Side, Violation};

impl Mux {
    /// Feeds what has arrived. Data is passed on as it comes; what is left in `input` is the beginning of another
    /// frame.
    pub(crate) fn feed(&mut self, input: &mut BytesMut, wake: &mut Vec<Waker>) -> Result<(), Violation> {
        loop {
            if let Some(frame) = self.arriving.take() {
                let n = frame.len.min(input.len());
                let rest = FrameHeader { len: frame.len - n, ..frame };
                self.on_bytes(rest, n, input, wake);
                if rest.len > 0 {
                    self.arriving = Some(rest);
                    return Ok(());
                }
            }
            let Some(raw) = input.first_chunk::<HEADER_LEN>() else { return Ok(()) };
            let header = FrameHeader::decode(*raw)?;
            if matches!(header.kind, Kind::Data | Kind::Fin) {
                input.advance(HEADER_LEN);
                self.on_data(header)?;
                self.arriving = Some(header);
                continue;
            }
            if input.len() < HEADER_LEN + header.len {
                input.reserve(HEADER_LEN + header.len - input.len());
                return Ok(());
            }
            input.advance(HEADER_LEN);
            let payload = input.split_to(header.len).freeze();
            self.on_control(header, payload, wake)?;
        }
    }

    /// Checks what a frame with data announces.
    fn on_data(&mut self, header: FrameHeader) -> Result<(), Violation> {
        let id = header.stream;
        let Some(row) = self.rows.get_mut(&id) else { return self.late(header) };
        if row.remote_fin {
            return Err(Violation::AfterFin(id));
        }
        let len = u32::try_from(header.len).unwrap_or(u32::MAX);
        row.recv_credit = row.recv_credit.checked_sub(len).ok_or(Violation::Credit(id))?;
        Ok(())
    }

    /// Takes the first `n` bytes of `input` for the stream they belong to; `rest` is what its frame still lacks.
    fn on_bytes(&mut self, rest: FrameHeader, n: usize, input: &mut BytesMut, wake: &mut Vec<Waker>) {
        let Some(row) = self.rows.get_mut(&rest.stream) else { return input.advance(n) };
        if row.gone.is_some() {
            // An end whose bytes nobody gets is no end in order either.
            return input.advance(n);
        }
        row.remote_fin = rest.kind == Kind::Fin && rest.len == 0;
        if n > 0 || row.remote_fin {
            row.receive(input, n);
            wake.extend(row.reader.take());
        }
    }

    fn on_control(
        &mut self,
        header: FrameHeader,
        payload: Bytes,
        wake: &mut Vec<Waker>,
    ) -> Result<(), Violation> {
        let id = header.stream;
        match header.kind {
            Kind::Open => self.on_open(id, payload, wake),
            Kind::Opened => {
                let Some(row) = self.rows.get_mut(&id) else { return self.late(header) };
                row.opened = true;
                wake.extend(row.opener.take());
                Ok(())
            }
            Kind::Reset => {
                let reason = Reason::from_code(u16::from_be_bytes([payload[0], payload[1]]));
                let Some(row) = self.rows.get_mut(&id) else { return self.late(header) };
                if row.gone.is_none() {
                    // What arrived before it stays readable: a response may be complete although the connection it
                    // came on ended badly.
                    row.gone = Some(Gone::Remote(reason));
                    row.wake_all(wake);
                }
                Ok(())
            }
            Kind::Window => {
                let credit = u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]);
                let Some(row) = self.rows.get_mut(&id) else { return self.late(header) };
                row.send_credit = row.send_credit.checked_add(credit).ok_or(Violation::Credit(id))?;
                wake.extend(row.writer.take());
                Ok(())
            }
            Kind::Ping => {
                // A flood of pings is answered up to a bound; the rest is a peer that does not want answers.
                if self.pongs < 16 {
                    self.pongs += 1;
                    frame::put(&mut self.out, Kind::Pong, 0, &payload);
                    self.wake_driver();
                }
                Ok(())
            }
            Kind::Pong => {
                let sent_at = payload.as_ref().get_u64();
                if sent_at & MARK != 0 {
                    self.marks.1 = self.marks.1.max((sent_at & !MARK).min(self.marks.0));
                    wake.append(&mut self.watchers);
                } else if let Some(rtt) = self.now.checked_sub(Duration::from_micros(sent_at)) {
                    self.rtt.measured(rtt, self.now);
                }
                Ok(())
            }
            Kind::Goaway => {
                let reason = Reason::from_code(u16::from_be_bytes([payload[0], payload[1]]));
                self.goaway_received.get_or_insert(reason);
                wake.append(&mut self.watchers);
                Ok(())
            }
            kind @ (Kind::Hello | Kind::Welcome | Kind::Refused | Kind::Data | Kind::Fin) => {
                Err(Violation::Unexpected(kind))
            }
        }
    }

    fn on_open(&mut self, id: u32, payload: Bytes, wake: &mut Vec<Waker>) -> Result<(), Violation> {
        if !self.takes_opens {
            return Err(Violation::Unexpected(Kind::Open));
        }
        if self.is_ours(id) || id <= self.last_peer_id {
            return Err(Violation::StreamOrder(id));
        }
        let header = StreamHeader::decode(payload)?;
        self.last_peer_id = id;
        let refusal = if self.goaway_sent.is_some() {
            Some(if self.side == Side::Agent { Reason::AgentDraining } else { Reason::Draining })
        } else if self.rows.len() >= limits::MAX_STREAMS {
            Some(Reason::Overloaded)
        } else {
            None
        };
        if let Some(reason) = refusal {
            frame::put(&mut self.out, Kind::Reset, id, &reason.code().to_be_bytes());
            self.wake_driver();
            return Ok(());
        }
        self.rows.insert(id, Row::new(self.now));
        self.note_sharing(wake);
        self.accepted.push_back((id, header));
        wake.extend(self.acceptor.take());
        Ok(())
    }

    const fn is_ours(&self, id: u32) -> bool {
        (id % 2 == 1) == matches!(self.side, Side::Gateway)
    }

    /// A frame for a stream without a row: fine if the stream once was, as the two ends forget it at different
    /// times; a violation if it never was.
    const fn late(&self, header: FrameHeader) -> Result<(), Violation> {
        let known = if self.is_ours(header.stream) {
            header.stream < self.next_id
        } else {
            header.stream <= self.last_peer_id
        };
        if known { Ok(()) } else { Err(Violation::UnknownStream(header.kind)) }
    }
}
