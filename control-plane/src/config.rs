//! Settings of a control plane.
