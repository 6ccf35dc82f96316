//! Client library of Holdfast: request signing and administration.
