//! Dummies: they drop what they are given.

use serde::{Deserialize, Serialize};

use super::LinkSort;
use crate::net::link::feature::LinkFeature;

/// A dummy is made with nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dummy {}

pub(super) const FEATURES: &[LinkFeature] =
    &[LinkFeature { kind: "dummy", option: "CONFIG_DUMMY", module: "dummy", about: "links to nowhere" }];

impl LinkSort for Dummy {
    fn feature(&self) -> LinkFeature {
        FEATURES[0]
    }
}
