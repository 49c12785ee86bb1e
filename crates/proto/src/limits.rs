//! Every bound of the wire format in one place. Decoders refuse what exceeds them before allocating.

/// Longest payload of one `DATA` frame, in bytes.
pub const MAX_DATA_PAYLOAD: usize = 64 * 1024;
/// Longest payload of any other frame, in bytes.
pub const MAX_CONTROL_PAYLOAD: usize = 64 * 1024;
/// Most services one session may offer.
pub const MAX_OFFERS: usize = 256;
/// Most offers one welcome says are not taken. More fall under the last one's message.
pub const MAX_NOTICES: usize = 32;
/// Longest host name or service name, in bytes (RFC 1035 §2.3.4).
pub const MAX_NAME: usize = 253;
/// Longest free text in a frame (an upstream's description, a version, a refusal), in bytes.
pub const MAX_TEXT: usize = 1024;
/// Bytes a stream may send before the receiver has granted more credit.
pub const INITIAL_WINDOW: u32 = 128 * 1024;
/// Most credit one stream may ever hold, in bytes.
pub const MAX_WINDOW: u32 = 16 * 1024 * 1024;
/// Most lanes of one session.
pub const MAX_LANES: usize = 8;
/// Most streams one lane of a session holds open at once.
pub const MAX_STREAMS: usize = 64 * 1024;
