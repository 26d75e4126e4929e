//! Start-up and shut-down order of the node.
