//! Labels of a sample, for every format.

use std::fmt::Display;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, NoLabelSet};

/// Labels as text and one by one.
pub(super) trait Labels: EncodeLabelSet {
    /// Gives every name and value, in order.
    fn each(&self, give: &mut dyn FnMut(&str, &dyn Display));
}

impl<V: Display, const N: usize> Labels for [(&str, V); N]
where
    V: EncodeLabelValue,
{
    fn each(&self, give: &mut dyn FnMut(&str, &dyn Display)) {
        for (name, value) in self {
            give(name, value);
        }
    }
}

impl<V: EncodeLabelValue + Display> Labels for Vec<(&str, V)> {
    fn each(&self, give: &mut dyn FnMut(&str, &dyn Display)) {
        for (name, value) in self {
            give(name, value);
        }
    }
}

impl<A: Labels, B: Labels> Labels for (A, B) {
    fn each(&self, give: &mut dyn FnMut(&str, &dyn Display)) {
        let (first, rest) = self;
        first.each(give);
        rest.each(give);
    }
}

impl Labels for NoLabelSet {
    fn each(&self, _: &mut dyn FnMut(&str, &dyn Display)) {
        match *self {}
    }
}
