//! A stream of any length that is never the same twice in a row, made as it is read.

use std::io::Read;

use aws_lc_rs::digest::{Context, SHA256};

const BLOCK: usize = 64 * 1024;

/// The first `len` bytes of the stream.
pub(crate) struct Data {
    block: Vec<u8>,
    at: u64,
    len: u64,
}

impl Data {
    pub(crate) fn new(len: u64) -> Self {
        let mut block = vec![0; BLOCK];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for byte in &mut block {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_le_bytes()[3];
        }
        Self { block, at: 0, len }
    }

    /// Lower-case hexadecimal SHA-256 of the stream from here to its end, and its length.
    pub(crate) fn digest(self) -> String {
        digest(self).unwrap()
    }
}

impl Read for Data {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let block = BLOCK as u64;
        let within = usize::try_from(self.at % block).unwrap();
        if within == 0 {
            // Each block begins with its number, so that a block lost, doubled or moved shows.
            self.block[..8].copy_from_slice(&(self.at / block).to_le_bytes());
        }
        let left = usize::try_from((self.len - self.at).min(block)).unwrap();
        let count = buffer.len().min(BLOCK - within).min(left);
        buffer[..count].copy_from_slice(&self.block[within..within + count]);
        self.at += count as u64;
        Ok(count)
    }
}

/// `LENGTH SHA256` of everything a reader has.
pub(crate) fn digest(mut reader: impl Read) -> std::io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 * 1024];
    let mut len = 0_u64;
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            let hex: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok(format!("{len} {hex}"));
        }
        len += count as u64;
        context.update(&buffer[..count]);
    }
}

#[test]
fn the_stream_is_the_same_however_it_is_read() {
    let mut whole = Vec::new();
    Data::new(200_000).read_to_end(&mut whole).unwrap();
    assert_eq!(whole.len(), 200_000);
    assert_ne!(whole[..BLOCK], whole[BLOCK..2 * BLOCK]);
    assert_eq!(digest(whole.as_slice()).unwrap(), Data::new(200_000).digest());
    assert_eq!(digest(&b"abc"[..]).unwrap()[..14], *"3 ba7816bf8f01");
}
