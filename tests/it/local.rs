//! The local mesh as a person uses it: `mesh run` and `mesh demo`, real processes, and nothing left of them.

mod demo;
mod run;
mod stat;
mod survive;
