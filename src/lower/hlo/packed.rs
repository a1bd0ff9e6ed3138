//! Numbers of less than a byte, which neither a literal nor a tensor file holds one by one: as the next wider type, and
//! back. ONNX packs them from the lowest bits of each byte up.

use crate::onnx::{DType, Tensor};

/// What the eight codes of a float4e2m1 without its sign stand for.
const QUARTERS: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// The type that holds every number of a packed type; `None` for types of a byte and more.
pub fn wider(dtype: DType) -> Option<DType> {
    match dtype {
        DType::Int2 | DType::Int4 => Some(DType::Int8),
        DType::Uint2 | DType::Uint4 => Some(DType::Uint8),
        DType::Float4E2M1 => Some(DType::Float),
        _ => None,
    }
}

/// A packed tensor in its [`wider`] type; `None` for other types, or where the values are not at hand.
pub fn unpack(tensor: &Tensor) -> Option<Tensor> {
    let dtype = tensor.dtype();
    let wide = wider(dtype)?;
    let (bytes, bits) = (tensor.to_bytes().ok()?, dtype.bits());
    let each = 8 / bits;
    let number = |place: usize| -> Option<f64> {
        let code = bytes.get(place / each)? >> (place % each * bits) & ((1 << bits) - 1);
        Some(match dtype {
            DType::Float4E2M1 => QUARTERS[usize::from(code & 7)] * if code & 8 == 0 { 1.0 } else { -1.0 },
            DType::Int2 | DType::Int4 => f64::from(((code << (8 - bits)) as i8) >> (8 - bits)),
            _ => f64::from(code),
        })
    };
    let numbers: Vec<f64> = (0..tensor.checked_len().ok()?).map(number).collect::<Option<_>>()?;
    Tensor::from_f64s(tensor.name(), wide, tensor.dims(), &numbers)
}

/// A tensor as a packed type, whose numbers it holds; what lies between two numbers of a float becomes the one below.
/// `None` where `dtype` is not packed, or the values are not numbers.
pub fn pack(tensor: &Tensor, dtype: DType) -> Option<Tensor> {
    wider(dtype)?;
    let bits = dtype.bits();
    let each = 8 / bits;
    let numbers = tensor.to_f64s().ok()?;
    let code = |number: &f64| -> u8 {
        let code = match dtype {
            DType::Float4E2M1 => {
                let place = QUARTERS.iter().rposition(|&quarter| quarter <= number.abs()).unwrap_or(0) as u8;
                if number.is_sign_negative() { place | 8 } else { place }
            }
            _ => *number as i64 as u8,
        };
        code & ((1 << bits) - 1)
    };
    let join = |group: &[f64]| group.iter().enumerate().fold(0, |byte, (i, number)| byte | code(number) << (i * bits));
    let bytes: Vec<u8> = numbers.chunks(each).map(join).collect();
    Some(Tensor::new(tensor.name(), dtype, tensor.dims(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_every_packed_type_comes_back() {
        for dtype in [DType::Int2, DType::Uint2, DType::Int4, DType::Uint4, DType::Float4E2M1] {
            let each = 8 / dtype.bits();
            let bytes: Vec<u8> = (0..=255).collect();
            // The last byte is filled in part alone.
            let packed = Tensor::new("t", dtype, &[256 * each as i64 - 1], bytes);
            let wide = unpack(&packed).unwrap();
            assert_eq!(wide.len(), packed.len());
            let back = pack(&wide, dtype).unwrap().to_bytes().unwrap();
            assert_eq!(back[..255], packed.to_bytes().unwrap()[..255], "{dtype}");
        }
        let signed = unpack(&Tensor::new("t", DType::Int4, &[3], vec![0x8f, 0x07])).unwrap();
        assert_eq!(signed.to_i64s().unwrap(), [-1, -8, 7]);
        let quarters = unpack(&Tensor::new("t", DType::Float4E2M1, &[2], vec![0xf1])).unwrap();
        assert_eq!(quarters.to_f64s().unwrap(), [0.5, -6.0]);
        assert!(unpack(&Tensor::from_f32("t", &[1], &[1.0])).is_none());
    }
}
