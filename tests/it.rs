//! Everything that is tested from outside the library, as one binary, so that the crate is linked once.

#[path = "support/lib.rs"]
mod support;

mod it {
    mod layers;
    mod local;
    mod proxy;
    mod readme;
}
