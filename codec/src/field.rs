//! Arithmetic in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11D), and the tables the kernels multiply by.
//!
//! Not here: anything fast. These functions build matrices; bytes go through `engine`.
//!
//! Source: Plank, "A Tutorial on Reed-Solomon Coding for Fault-Tolerance in RAID-like Systems" (1997), section 4.

/// The reducing polynomial, x^8 included.
const POLYNOMIAL: u16 = 0x11D;
/// 2 generates all non-zero elements: its powers repeat after 255.
const ORDER: usize = 255;

/// Powers of 2 and their inverse function.
struct Logarithms {
    /// `2^i`, twice over so that a sum of two logarithms needs no reduction.
    exp: [u8; 2 * ORDER],
    /// `log2` of each non-zero element; entry 0 is unused.
    log: [u8; 256],
}

const LOGARITHMS: Logarithms = logarithms();

#[allow(clippy::cast_possible_truncation, reason = "const fn: `try_from` is not const; every value is below 256 here")]
const fn logarithms() -> Logarithms {
    let mut tables = Logarithms { exp: [0; 2 * ORDER], log: [0; 256] };
    let mut power: u16 = 1;
    let mut i = 0;
    while i < ORDER {
        tables.exp[i] = power as u8;
        tables.exp[i + ORDER] = power as u8;
        tables.log[power as usize] = i as u8;
        power <<= 1;
        if power & 0x100 != 0 {
            power ^= POLYNOMIAL;
        }
        i += 1;
    }
    tables
}

/// Product.
pub(crate) const fn mul(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    LOGARITHMS.exp[LOGARITHMS.log[a as usize] as usize + LOGARITHMS.log[b as usize] as usize]
}

/// The element whose product with `a` is 1; `None` for 0.
pub(crate) fn inverse(a: u8) -> Option<u8> {
    if a == 0 {
        return None;
    }
    Some(LOGARITHMS.exp[ORDER - usize::from(LOGARITHMS.log[usize::from(a)])])
}

/// `base` to the power `exponent`, with `0^0 = 1`.
pub(crate) fn power(base: u8, exponent: usize) -> u8 {
    if exponent == 0 {
        return 1;
    }
    if base == 0 {
        return 0;
    }
    LOGARITHMS.exp[usize::from(LOGARITHMS.log[usize::from(base)]) * (exponent % ORDER) % ORDER]
}

/// For each coefficient the 8x8 bit matrix that multiplies by it, as `gf2p8affineqb` reads it: row i of the matrix,
/// which makes bit i of the product, is byte 7 - i.
pub(crate) static AFFINE: [u64; 256] = affine_table();

const fn affine_table() -> [u64; 256] {
    let mut table = [0u64; 256];
    let mut c = 0;
    while c < 256 {
        let mut matrix = 0u64;
        let mut bit = 0;
        while bit < 8 {
            #[allow(clippy::cast_possible_truncation, reason = "const fn: c is below 256")]
            let product = mul(c as u8, 1 << bit);
            let mut row = 0;
            while row < 8 {
                if product & (1 << row) != 0 {
                    matrix |= 1u64 << ((7 - row) * 8 + bit);
                }
                row += 1;
            }
            bit += 1;
        }
        table[c] = matrix;
        c += 1;
    }
    table
}

/// For each coefficient its products with the 16 low nibbles, then with the 16 high nibbles, as `pshufb` reads them.
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, reason = "read by vector kernels only")
)]
pub(crate) static NIBBLES: [[u8; 32]; 256] = nibble_table();

#[allow(clippy::cast_possible_truncation, reason = "const fn: c is below 256, nibble below 16")]
const fn nibble_table() -> [[u8; 32]; 256] {
    let mut table = [[0u8; 32]; 256];
    let mut c = 0;
    while c < 256 {
        let mut nibble = 0;
        while nibble < 16 {
            table[c][nibble] = mul(c as u8, nibble as u8);
            table[c][16 + nibble] = mul(c as u8, (nibble as u8) << 4);
            nibble += 1;
        }
        c += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use reed_solomon_erasure::galois_8;

    /// Multiplication as taught: shift, add, reduce.
    fn mul_by_hand(a: u8, b: u8) -> u8 {
        let mut product = 0u16;
        for bit in 0..8 {
            if b & (1 << bit) != 0 {
                product ^= u16::from(a) << bit;
            }
        }
        for bit in (8..16).rev() {
            if product & (1 << bit) != 0 {
                product ^= POLYNOMIAL << (bit - 8);
            }
        }
        u8::try_from(product).unwrap()
    }

    #[test]
    fn products_agree_with_the_definition_the_crate_and_both_tables() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let product = mul_by_hand(a, b);
                assert_eq!(mul(a, b), product);
                assert_eq!(galois_8::mul(a, b), product);
                let nibbles = &NIBBLES[usize::from(a)];
                assert_eq!(nibbles[usize::from(b & 15)] ^ nibbles[16 + usize::from(b >> 4)], product);
                let matrix = AFFINE[usize::from(a)].to_le_bytes();
                let affine =
                    (0..8).fold(0u8, |byte, i| byte | (u8::from((matrix[7 - i] & b).count_ones() % 2 == 1) << i));
                assert_eq!(affine, product);
            }
        }
    }

    #[test]
    fn inverses_and_powers_hold() {
        assert_eq!(inverse(0), None);
        for a in 1..=255u8 {
            assert_eq!(mul(a, inverse(a).unwrap()), 1);
        }
        for a in 0..=255u8 {
            let mut expected = 1;
            for exponent in 0..600 {
                assert_eq!(power(a, exponent), expected, "{a}^{exponent}");
                expected = mul(expected, a);
            }
        }
    }
}
