//! What may happen: tokens, identities, access rules and the permits they grant, as pure decisions.
