//! The matrices: frozen, equal to their definition written down a second time, and changed by no single coefficient.

use super::*;
use crate::field;
use crate::scheme::GeoTable;
use reed_solomon_erasure::galois_8::ReedSolomon;

/// Every scheme a test of all codes goes through.
pub(crate) fn schemes() -> Vec<Scheme> {
    let texts = [
        "1+1",
        "2+1",
        "4+2",
        "6+3",
        "7+5",
        "6+6",
        "10+4",
        "17+3",
        "20+10",
        "geo-6",
        "geo-12",
        "geo-12+",
        "geo-12/4r",
        "lrc-12-2-2",
        "lrc-30-2-2",
        "lrc-2-2-2",
        "lrc-12-3-2",
        "lrc-32-2-2",
        "lrc-6-1-4",
        "lrc-20-4-3",
        "lrc-5-5-1",
    ];
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// The parity shards of one data byte each, by the definition of the family in bytes rather than by a matrix.
fn parity_by_definition(scheme: Scheme, data: &[u8]) -> Vec<u8> {
    let sum = |terms: &mut dyn Iterator<Item = u8>| terms.fold(0, |sum, term| sum ^ term);
    let over = |x: usize, j: usize| field::inverse(u8::try_from(x ^ j).unwrap()).unwrap();
    let k = scheme.k();
    match scheme.family() {
        Family::ReedSolomon => {
            let mut shards: Vec<[u8; 1]> = data.iter().map(|&byte| [byte]).collect();
            shards.extend(vec![[0]; scheme.m()]);
            ReedSolomon::new(k, scheme.m()).unwrap().encode(&mut shards).unwrap();
            shards[k..].iter().map(|shard| shard[0]).collect()
        }
        Family::AzureLrc => {
            let (x, y) = data.split_at(k / 2);
            let a = |i: usize| u8::try_from(i + 1).unwrap();
            let g = |power: usize| {
                let weight = |a: u8| field::power(a, power);
                sum(&mut x.iter().enumerate().map(|(i, &d)| field::mul(weight(a(i) << 4), d)))
                    ^ sum(&mut y.iter().enumerate().map(|(i, &d)| field::mul(weight(a(i)), d)))
            };
            vec![sum(&mut x.iter().copied()), sum(&mut y.iter().copied()), g(1), g(2)]
        }
        Family::CauchyLrc { groups, globals } => {
            let locals = data.chunks(k / usize::from(groups)).map(|run| sum(&mut run.iter().copied()));
            let globals = (0..usize::from(globals))
                .map(|i| sum(&mut data.iter().enumerate().map(|(j, &d)| field::mul(over(k + i, j), d))));
            locals.chain(globals).collect()
        }
        Family::Geo(table) => {
            let shape = table.shape();
            let global = |&x: &u8| sum(&mut data.iter().enumerate().map(|(j, &d)| field::mul(over(x.into(), j), d)));
            let globals: Vec<u8> = shape.points.iter().map(global).collect();
            let mut parity = globals.clone();
            let regions = data.chunks(shape.data).zip(globals.chunks(shape.globals));
            for (region, (data, globals)) in regions.enumerate() {
                let members: Vec<u8> = data.iter().chain(globals).copied().collect();
                parity.push(sum(&mut members.iter().copied()));
                if shape.locals == 2 {
                    let weight = |i: usize| field::power(2, members.len() * region + i);
                    parity.push(sum(&mut members.iter().enumerate().map(|(i, &c)| field::mul(weight(i), c))));
                }
            }
            parity
        }
    }
}

/// Whether a generator's parity rows give what the definition gives, for each data shard alone.
fn agrees(scheme: Scheme, generator: &Matrix) -> bool {
    (0..scheme.k()).all(|j| {
        let mut data = vec![0; scheme.k()];
        data[j] = 1;
        let parity = parity_by_definition(scheme, &data);
        parity.iter().enumerate().all(|(row, &byte)| generator.get(scheme.k() + row, j) == byte)
    })
}

#[test]
fn every_matrix_is_what_its_definition_says() {
    for scheme in schemes() {
        let code = Code::new(scheme);
        assert!(agrees(scheme, code.generator()), "{scheme}");
        for slot in 0..scheme.k() {
            let row = code.row(slot).unwrap();
            assert!((0..scheme.k()).all(|j| row[j] == u8::from(j == slot)), "{scheme} is systematic");
        }
        assert_eq!(code.row(scheme.n()), None);
    }
}

#[test]
fn every_shape_of_reed_solomon_has_the_matrix_of_the_crate() {
    for k in 1..=254 {
        // All m at once: the first m parity rows do not depend on how many there are.
        let generator = Matrix::reed_solomon(k, 255 - k).unwrap();
        let scheme = Scheme::reed_solomon(k, 255 - k).unwrap();
        let data: Vec<u8> = (0..k).map(|j| u8::try_from((j * 7 + 1) % 256).unwrap()).collect();
        let parity = parity_by_definition(scheme, &data);
        for (row, &byte) in parity.iter().enumerate() {
            let sum = data.iter().zip(generator.row(k + row)).fold(0, |sum, (&d, &c)| sum ^ field::mul(c, d));
            assert_eq!(sum, byte, "RS({k}, {row} and more)");
        }
        for m in [1, (255 - k) / 2].into_iter().filter(|&m| m >= 1 && k % 8 == 0) {
            let small = Matrix::reed_solomon(k, m).unwrap();
            assert!((0..k + m).all(|row| small.row(row) == generator.row(row)), "RS({k},{m})");
        }
    }
}

#[test]
fn no_coefficient_of_any_matrix_can_change_unnoticed() {
    for scheme in schemes() {
        let mut generator = Code::new(scheme).generator().clone();
        for row in scheme.k()..scheme.n() {
            for column in 0..scheme.k() {
                let right = generator.get(row, column);
                for wrong in [right ^ 1, right ^ 0x80, right.wrapping_add(1), !right] {
                    generator.set(row, column, wrong);
                    assert!(!agrees(scheme, &generator), "{scheme} [{row}][{column}] = {wrong}");
                }
                generator.set(row, column, right);
            }
        }
    }
}

/// FNV-1a of all cells of the generator, row by row.
fn fingerprint(code: &Code) -> u64 {
    let mut digest = 0xCBF2_9CE4_8422_2325u64;
    for slot in 0..code.scheme().n() {
        for &cell in code.row(slot).unwrap() {
            digest = (digest ^ u64::from(cell)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
    digest
}

#[test]
fn matrices_are_frozen() {
    let found: Vec<(String, u64)> =
        schemes().into_iter().map(|scheme| (scheme.to_string(), fingerprint(&Code::new(scheme)))).collect();
    let frozen: Vec<(String, u64)> = FROZEN.iter().map(|&(name, digest)| (name.to_owned(), digest)).collect();
    assert_eq!(found, frozen);
}

/// Never to be changed: stored bytes depend on it.
const FROZEN: [(&str, u64); 21] = [
    ("RS(1,1)", 0x82f2307b4e88e77),
    ("RS(2,1)", 0x3ede3c7408b039a),
    ("RS(4,2)", 0x168f10446f860f6b),
    ("RS(6,3)", 0xa6cc69954c181df0),
    ("RS(7,5)", 0x8fcf97072d763359),
    ("RS(6,6)", 0x68ae7ae66b3ea8d9),
    ("RS(10,4)", 0x5b2f1087ed112b07),
    ("RS(17,3)", 0x52b7529409fcf671),
    ("RS(20,10)", 0x39995bee434abdcb),
    ("GEO-6", 0x871becc92800ff51),
    ("GEO-12", 0x4fe94ab6edbff21d),
    ("GEO-12+", 0x4b83f4b380a8e456),
    ("GEO-12/4R", 0xd24df393895a7ea5),
    ("LRC(12,2,2)", 0xad02e2d0a0274753),
    ("LRC(30,2,2)", 0xb189145336bd6a31),
    ("LRC(2,2,2)", 0xd754e13e27bf7ab8),
    ("LRC(12,3,2)", 0xa7d989caddb7a65f),
    ("LRC(32,2,2)", 0x8c31db8810db709),
    ("LRC(6,1,4)", 0x4686364d6a58a1f5),
    ("LRC(20,4,3)", 0x1d191556c10a2ad0),
    ("LRC(5,5,1)", 0x4c6a849f294b4f6c),
];

#[test]
fn geo_6_is_written_out() {
    let code = Code::new(Scheme::geo(GeoTable::Geo6));
    let rows: Vec<&[u8]> = (6..12).map(|slot| code.row(slot).unwrap()).collect();
    assert_eq!(rows, GEO_6);
}
const GEO_6: [[u8; 6]; 6] = [
    [122, 186, 71, 167, 142, 244],
    [173, 157, 221, 152, 61, 170],
    [221, 152, 173, 157, 93, 150],
    [123, 187, 71, 167, 142, 244],
    [173, 157, 220, 153, 61, 170],
    [221, 152, 173, 157, 92, 151],
];

#[test]
fn groups_mend_their_own_losses() {
    for scheme in schemes() {
        let code = Code::new(scheme);
        for group in code.groups() {
            let members: Vec<usize> = group.members.iter().collect();
            for a in 0..members.len() {
                for b in a..members.len() {
                    let lost: SlotSet = [members[a], members[b]].into_iter().collect();
                    let rest = group.members.difference(&lost);
                    let mends = solve::express(code.generator(), &rest, &lost).is_some();
                    // A group of one data shard is a copy: both lost cannot be mended, one can.
                    assert_eq!(mends, lost.len() <= group.parities, "{scheme}: {lost:?} from {rest:?}");
                }
            }
        }
    }
}

#[test]
fn regions_are_even_and_groups_stay_inside() {
    for table in GeoTable::ALL {
        let (code, shape) = (Code::new(Scheme::geo(table)), table.shape());
        assert_eq!(code.regions(), shape.regions);
        for region in 0..code.regions() {
            let slots = code.slots_in(region);
            assert_eq!(slots.len(), shape.data + shape.globals + shape.locals);
            assert_eq!(code.groups()[region].members, slots);
            assert_eq!(SlotSet::first(shape.k()).intersection(&slots).len(), shape.data);
        }
        assert!(Code::over_regions(code.scheme(), 3).is_err());
    }
    for text in ["7+5", "6+6"] {
        let code = Code::over_regions(text.parse().unwrap(), 3).unwrap();
        assert!((0..3).all(|region| code.slots_in(region).len() == 4));
        assert_eq!(code.region_of(11), Some(2));
        assert_eq!(code.region_of(12), None);
        assert_eq!(code.slots_in(3), SlotSet::new());
    }
    for regions in [0, 13] {
        let refused = CodecError::RegionCount { regions, slot_count: 12 };
        assert_eq!(Code::over_regions("6+6".parse().unwrap(), regions).unwrap_err(), refused);
    }
}
