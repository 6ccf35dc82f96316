//! Ids, texts and shapes of schemes.

use super::*;

#[test]
fn every_shape_that_exists_round_trips_and_no_other_is_made() {
    for k in 0..=257usize {
        for m in 0..=257usize {
            let legal = k >= 1 && m >= 1 && k + m <= 255;
            match Scheme::reed_solomon(k, m) {
                Ok(scheme) => {
                    assert!(legal, "{k}+{m} must be refused");
                    assert_eq!(Scheme::from_code(scheme.code()), Ok(scheme));
                    assert_eq!(format!("{k}+{m}").parse(), Ok(scheme));
                    assert_eq!((scheme.k(), scheme.m(), scheme.n()), (k, m, k + m));
                    assert_eq!(scheme.losses_survived(), m);
                }
                Err(error) => {
                    assert!(!legal, "{k}+{m} must be accepted");
                    assert_eq!(error, SchemeError::Shape { k, m });
                }
            }
        }
    }
    assert!(Scheme::reed_solomon(usize::MAX, usize::MAX).is_err());
}

#[test]
fn every_lrc_shape_round_trips_and_no_other_is_made() {
    for k in 0..=256usize {
        for groups in 0..=16usize {
            for globals in 0..=16usize {
                let counts = 1..=15;
                let legal = k >= 1
                    && counts.contains(&groups)
                    && counts.contains(&globals)
                    && k % groups == 0
                    && k + groups + globals <= 255;
                let Ok(scheme) = Scheme::lrc(k, groups, globals) else {
                    assert!(!legal, "LRC({k},{groups},{globals}) must be accepted");
                    continue;
                };
                assert!(legal, "LRC({k},{groups},{globals}) must be refused");
                assert_eq!(Scheme::from_code(scheme.code()), Ok(scheme));
                assert_eq!(format!("lrc-{k}-{groups}-{globals}").parse(), Ok(scheme));
                assert_eq!(scheme.to_string(), format!("LRC({k},{groups},{globals})"));
                assert_eq!((scheme.k(), scheme.m()), (k, groups + globals));
                assert_eq!(scheme.family() == Family::AzureLrc, (groups, globals) == (2, 2) && k <= 30);
            }
        }
    }
    assert!(Scheme::lrc(usize::MAX, 1, 1).is_err() && Scheme::lrc(4, usize::MAX, 1).is_err());
}

#[test]
fn code_ids_are_frozen() {
    let id = |text: &str| text.parse::<Scheme>().unwrap().code();
    assert_eq!(id("4+2"), [0x1D, 1, 4, 2]);
    assert_eq!(id("17+3"), [0x1D, 1, 17, 3]);
    assert_eq!(id("geo-6"), [0x1D, 2, 6, 6]);
    assert_eq!(id("geo-12"), [0x1D, 2, 12, 9]);
    assert_eq!(id("geo-12+"), [0x1D, 2, 12, 12]);
    assert_eq!(id("GEO-12/4R"), [0x1D, 2, 12, 8]);
    assert_eq!(id("lrc-12-2-2"), [0x1D, 3, 12, 0x22]);
    assert_eq!(id("lrc-32-2-2"), [0x1D, 4, 32, 0x22]);
    assert_eq!(id("lrc-12-3-2"), [0x1D, 4, 12, 0x32]);
    assert_eq!(Scheme::reed_solomon(4, 2).unwrap().to_string(), "RS(4,2)");
}

#[test]
fn of_all_ids_only_canonical_ones_are_known() {
    let mut known = 0u32;
    for family in 0..=255u8 {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let code = [FIELD_GF256_11D, family, a, b];
                if let Ok(scheme) = Scheme::from_code(code) {
                    assert_eq!(scheme.code(), code);
                    known += 1;
                }
            }
        }
    }
    let lrc = (1..=255usize)
        .flat_map(|k| (1..=15).flat_map(move |l| (1..=15).map(move |g| (k, l, g))))
        .filter(|&(k, l, g)| k % l == 0 && k + l + g <= 255)
        .count();
    // 254 * 255 / 2 shapes of RS, the four tables, and the LRCs.
    assert_eq!(known, 32385 + 4 + u32::try_from(lrc).unwrap());
}

#[test]
fn unknown_ids_are_refused_by_cause() {
    assert!(matches!(Scheme::from_code([0x1B, 1, 4, 2]), Err(SchemeError::Field { field: 0x1B, .. })));
    assert!(matches!(Scheme::from_code([0x1D, 5, 4, 2]), Err(SchemeError::Family { family: 5, .. })));
    assert!(matches!(Scheme::from_code([0x1D, 2, 8, 7]), Err(SchemeError::Table { .. })));
    assert!(matches!(Scheme::from_code([0x1D, 3, 12, 0x32]), Err(SchemeError::Alias { .. })));
    assert!(matches!(Scheme::from_code([0x1D, 4, 12, 0x22]), Err(SchemeError::Alias { .. })));
    assert!(matches!(Scheme::from_code([0x1D, 3, 13, 0x22]), Err(SchemeError::LrcShape { k: 13, .. })));
    assert!(matches!(Scheme::from_code([0x1D, 1, 0, 2]), Err(SchemeError::Shape { k: 0, m: 2 })));
    assert!(matches!(Scheme::from_code([0x1D, 1, 255, 255]), Err(SchemeError::Shape { .. })));
    assert!(Scheme::from_code([0; 4]).is_err());
}

#[test]
fn text_that_names_no_scheme_is_refused() {
    let texts = [
        "",
        "4",
        "4+",
        "+2",
        "4+2+1",
        " 4+2",
        "4 + 2",
        "-4+2",
        "4+x",
        "++",
        "4,2",
        "99999999999999999999+1",
        "geo",
        "geo-8",
        "geo-6 ",
        "lrc-",
        "lrc-12",
        "lrc-12-2",
        "lrc-12-2-2-2",
        "lrc-+12-2-2",
        "lrc-13-2-2",
        "lrc-12-0-2",
    ];
    for text in texts {
        assert!(text.parse::<Scheme>().is_err(), "{text:?} was accepted");
    }
}
