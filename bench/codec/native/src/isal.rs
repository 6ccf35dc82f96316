//! ISA-L's encoder, as its dispatcher would choose and with a certain kernel. The crate `erasure-isa-l-sys` builds the
//! library; its bindings leave out the functions of single kernels, which are declared here.

use erasure_isa_l_sys as _;

type EncodeData = unsafe extern "C" fn(i32, i32, i32, *mut u8, *const *const u8, *const *mut u8);
type InitTables = unsafe extern "C" fn(i32, i32, *const u8, *mut u8);

unsafe extern "C" {
    fn ec_encode_data(len: i32, k: i32, rows: i32, tables: *mut u8, data: *const *const u8, coding: *const *mut u8);
    fn ec_encode_data_avx512_gfni(len: i32, k: i32, rows: i32, t: *mut u8, data: *const *const u8, c: *const *mut u8);
    fn ec_encode_data_avx2_gfni(len: i32, k: i32, rows: i32, t: *mut u8, data: *const *const u8, c: *const *mut u8);
    fn ec_encode_data_avx2(len: i32, k: i32, rows: i32, t: *mut u8, data: *const *const u8, c: *const *mut u8);
    fn ec_init_tables(k: i32, rows: i32, coefficients: *const u8, tables: *mut u8);
    fn ec_init_tables_gfni(k: i32, rows: i32, coefficients: *const u8, tables: *mut u8);
    fn ec_init_tables_base(k: i32, rows: i32, coefficients: *const u8, tables: *mut u8);
}

/// Which of its kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// What the library chooses.
    Auto,
    /// AVX-512 with GFNI.
    Avx512Gfni,
    /// AVX2 with GFNI.
    Avx2Gfni,
    /// AVX2 with byte shuffles.
    Avx2,
}

impl Kernel {
    /// Those this processor can run.
    pub fn available() -> Vec<Self> {
        let gfni = is_x86_feature_detected!("gfni");
        let mut found = vec![Self::Auto];
        if gfni && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
            found.push(Self::Avx512Gfni);
        }
        if gfni && is_x86_feature_detected!("avx2") {
            found.push(Self::Avx2Gfni);
        }
        if is_x86_feature_detected!("avx2") {
            found.push(Self::Avx2);
        }
        found
    }

    fn functions(self) -> (InitTables, EncodeData) {
        match self {
            Self::Auto => (ec_init_tables, ec_encode_data),
            Self::Avx512Gfni => (ec_init_tables_gfni, ec_encode_data_avx512_gfni),
            Self::Avx2Gfni => (ec_init_tables_gfni, ec_encode_data_avx2_gfni),
            Self::Avx2 => (ec_init_tables_base, ec_encode_data_avx2),
        }
    }
}

/// A matrix ready for use.
pub struct Isal {
    encode: EncodeData,
    tables: Vec<u8>,
    k: usize,
    rows: usize,
}

impl Isal {
    /// For coefficients row by row, k each.
    pub fn new(kernel: Kernel, k: usize, coefficients: &[u8]) -> Self {
        let (init, encode) = kernel.functions();
        let rows = coefficients.len() / k;
        let mut tables = vec![0u8; 32 * k * rows];
        // SAFETY: there are k * rows coefficients, and the tables are as long as the library's header asks for.
        unsafe { init(number(k), number(rows), coefficients.as_ptr(), tables.as_mut_ptr()) };
        Self { encode, tables, k, rows }
    }

    /// Computes all rows.
    pub fn run(&mut self, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        let len = inputs[0].len();
        assert!(inputs.len() == self.k && outputs.len() == self.rows);
        assert!(inputs.iter().all(|input| input.len() == len) && outputs.iter().all(|output| output.len() == len));
        let (mut from, mut to) = ([std::ptr::null(); 255], [std::ptr::null_mut(); 255]);
        for (from, input) in from.iter_mut().zip(inputs) {
            *from = input.as_ptr();
        }
        for (to, output) in to.iter_mut().zip(outputs) {
            *to = output.as_mut_ptr();
        }
        // SAFETY: k inputs and as many outputs as rows, all of `len` bytes; the processor has the kernel's instructions
        // (`available`, or the library's own choice).
        unsafe {
            (self.encode)(
                number(len),
                number(self.k),
                number(self.rows),
                self.tables.as_mut_ptr(),
                from.as_ptr(),
                to.as_ptr(),
            );
        }
    }
}

fn number(value: usize) -> i32 {
    i32::try_from(value).expect("benchmarks are smaller than 2 GiB")
}
