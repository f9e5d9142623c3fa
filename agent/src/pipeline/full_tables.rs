//! Tables of the kernel half that are full: a line in the log when one becomes full, and one when
//! it has room again.

use model::snapshot::MapView;

/// In percent, below which a table that was full has room again.
const ROOM_BELOW: u64 = 80;

/// The tables that were full at the last look.
#[derive(Debug, Default)]
pub(super) struct FullTables(Vec<String>);

impl FullTables {
    /// Takes in how full the tables are, and logs changes.
    pub(super) fn observe(&mut self, maps: &[MapView]) {
        for map in maps {
            let MapView { name, entries, capacity } = map;
            let known = self.0.iter().position(|full| full == name);
            match known {
                None if map.is_full() => {
                    tracing::warn!(
                        "the table {name} is full ({entries} of {capacity} rows): {}",
                        map.consequence()
                    );
                    self.0.push(name.clone());
                }
                Some(at) if entries.saturating_mul(100) < capacity.saturating_mul(ROOM_BELOW) => {
                    tracing::info!(
                        "the table {name} has room again ({entries} of {capacity} rows)"
                    );
                    self.0.remove(at);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_full_until_a_fifth_is_free() {
        let mut tables = FullTables::default();
        let mut observe = |entries| {
            tables.observe(&[
                MapView { name: "owners".to_owned(), entries, capacity: 100 },
                MapView { name: "edges".to_owned(), entries: 0, capacity: 0 },
            ]);
            !tables.0.is_empty()
        };
        let steps = [(94, false), (95, true), (100, true), (80, true), (79, false), (94, false)];
        for (entries, is_full) in steps {
            assert_eq!(observe(entries), is_full, "{entries}");
        }
    }
}
