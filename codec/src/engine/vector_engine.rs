//! An engine from an implementation of [`Lanes`](super::lanes::Lanes): its type, its detection, and the loops of
//! `columns` and `grouped` for each number of outputs, compiled with the instructions they need.

#![cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(unused_macros, unused_imports, reason = "no vector kernel on this processor")
)]

/// `grouped` lists (dense rows, groups, dense rows in each group's sum).
macro_rules! vector_engine {
    ($engine:ident, $name:literal, $lanes:ty, $features:literal, $able:expr, registers = $unroll:literal,
     rows = [$($rows:literal),+], grouped = [$(($dense:literal, $groups:literal, $feeds:literal)),*]) => {
        /// Exists only where the processor has the instructions.
        #[derive(Debug)]
        pub(super) struct $engine {
            _detected: (),
        }

        static ENGINE: $engine = $engine { _detected: () };

        /// Most outputs of one pass.
        const ROWS_MAX: usize = { const ROWS: &[usize] = &[$($rows),+]; ROWS[ROWS.len() - 1] };

        impl $engine {
            /// The engine, if this processor can run it.
            pub(super) fn detect() -> Option<&'static Self> {
                $able.then_some(&ENGINE)
            }
        }

        impl $crate::engine::Engine for $engine {
            fn name(&self) -> &'static str {
                $name
            }

            fn combine(
                &self,
                combination: &$crate::engine::Combination,
                inputs: &[&[u8]],
                outputs: &mut [&mut [u8]],
                store: $crate::engine::Store,
            ) {
                use $crate::engine::columns::{self, Pass, PassStore};
                let len = combination.checked_len(inputs, outputs);
                let is_streamed = store == $crate::engine::Store::Stream;
                let store = match store {
                    $crate::engine::Store::Replace => PassStore::Replace,
                    $crate::engine::Store::Stream => PassStore::Stream,
                    $crate::engine::Store::Add => PassStore::Add,
                };
                if let Some(grouped) = &combination.grouped {
                    let _pass = Pass { to: len, ..Pass::new::<$lanes>(&grouped.dense, inputs, store) };
                    match grouped.shape() {
                        $(Some(($dense, $groups, $feeds)) => {
                            // SAFETY: `detect` has seen the features; `checked_len` has seen that every slice has `len`
                            // bytes; a grouped combination's parts fit it and each other.
                            return unsafe {
                                grouped_pass::<$dense, $groups, $feeds>(&_pass, grouped, outputs, is_streamed)
                            };
                        })*
                        _ => {}
                    }
                }
                let pass = Pass::new::<$lanes>(combination, inputs, store);
                columns::for_each_run(combination.outputs, ROWS_MAX, len, |first, rows, from, to| {
                    let outputs = &mut outputs[first..first + rows];
                    let pass = Pass { first, from, to, ..pass };
                    match rows {
                        // SAFETY: `detect` has seen the features; `checked_len` has seen that every slice has `len`
                        // bytes, and `from <= to <= len`; the runs are inside the combination's outputs.
                        $($rows => unsafe { pass_of::<$rows>(&pass, outputs, is_streamed) },)+
                        _ => unreachable!("runs have 1 to {ROWS_MAX} rows"),
                    }
                });
            }
        }

        /// # Safety
        /// The processor has the features; else as of `columns`.
        #[target_feature(enable = $features)]
        unsafe fn pass_of<const M: usize>(
            pass: &$crate::engine::columns::Pass<'_>,
            outputs: &mut [&mut [u8]],
            is_streamed: bool,
        ) {
            // SAFETY: the caller's.
            unsafe {
                if is_streamed {
                    $crate::engine::columns::columns::<$lanes, M, 1>(pass, outputs);
                    <$lanes>::fence();
                } else {
                    $crate::engine::columns::columns::<$lanes, M, $unroll>(pass, outputs);
                }
            }
        }

        /// # Safety
        /// The processor has the features; else as of `grouped`.
        #[target_feature(enable = $features)]
        #[allow(dead_code, reason = "not every engine has a grouped form")]
        unsafe fn grouped_pass<const M: usize, const G: usize, const P: usize>(
            pass: &$crate::engine::columns::Pass<'_>,
            grouped: &$crate::engine::combination::Grouped,
            outputs: &mut [&mut [u8]],
            is_streamed: bool,
        ) {
            // SAFETY: the caller's.
            unsafe {
                if is_streamed {
                    $crate::engine::grouped::grouped::<$lanes, M, G, P, 1>(pass, grouped, outputs);
                    <$lanes>::fence();
                } else {
                    $crate::engine::grouped::grouped::<$lanes, M, G, P, $unroll>(pass, grouped, outputs);
                }
            }
        }
    };
}
pub(super) use vector_engine;
