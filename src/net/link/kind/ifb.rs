//! Intermediate functional blocks: they get what another link receives, to be shaped.

use serde::{Deserialize, Serialize};

use super::LinkSort;
use crate::net::link::feature::LinkFeature;

/// An ifb is made with nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ifb {}

pub(super) const FEATURES: &[LinkFeature] =
    &[LinkFeature { kind: "ifb", option: "CONFIG_IFB", module: "ifb", about: "shaping of incoming traffic" }];

impl LinkSort for Ifb {
    fn feature(&self) -> LinkFeature {
        FEATURES[0]
    }
}
