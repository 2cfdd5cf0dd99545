//! What a lab looks like while its script runs.

use super::Lab;
use crate::lab::netns_view::{NetnsView, namespaces_of, view_netns};
use crate::state::{NetnsRef, Result};

impl Lab {
    /// Returns what is in a namespace, as the kernel has it now.
    pub fn look_into(&mut self, at: &NetnsRef) -> Result<NetnsView> {
        let (kernel, model) = self.settled()?;
        Ok(view_netns(kernel, model, at, None))
    }

    /// Returns the namespaces in which the lab has something, as the kernel has them now.
    pub fn look_around(&mut self) -> Result<Vec<NetnsView>> {
        let (kernel, model) = self.settled()?;
        Ok(namespaces_of(model).iter().map(|at| view_netns(kernel, model, at, None)).collect())
    }
}
