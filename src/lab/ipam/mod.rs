//! x
/// x
pub struct Ipam;
