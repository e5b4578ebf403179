//! Everything that is tested from outside the library, as one binary, so that the crate is linked once.

mod it {
    mod layers;
}
