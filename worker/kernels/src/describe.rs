//! Items that Rust and CUDA share, described as C++ sees them: the macros emit the Rust item as it
//! is written and, beside it, the declaration for `cuda/abi.h`. Also used by the build script.

use std::{ffi::c_void, num::NonZeroU64};

use crate::ptr::DevicePtr;

/// A type that both sides have, with the same size and alignment.
pub trait CType {
    /// Its name in C++, without the length of an array.
    fn name() -> String;
    /// What follows the name of a field: the length of an array.
    fn suffix() -> String {
        String::new()
    }
}

macro_rules! c_types {
    ($($rust:ty => $c:literal,)*) => {$(
        impl CType for $rust {
            fn name() -> String {
                $c.to_owned()
            }
        }
    )*};
}

c_types! {
    u8 => "uint8_t",
    u32 => "uint32_t",
    u64 => "uint64_t",
    i64 => "int64_t",
    f32 => "float",
    crate::bf16 => "bf16",
    *mut c_void => "void*",
}

impl<T: CType> CType for DevicePtr<T> {
    fn name() -> String {
        format!("{}*", T::name())
    }
}

/// `None` is the null pointer.
impl<T: CType> CType for Option<DevicePtr<T>> {
    fn name() -> String {
        DevicePtr::<T>::name()
    }
}

// What the two above rest on.
const _: () = assert!(size_of::<Option<DevicePtr<u8>>>() == size_of::<u64>());
const _: () = assert!(align_of::<DevicePtr<u8>>() == align_of::<NonZeroU64>());

impl<T: CType, const LENGTH: usize> CType for [T; LENGTH] {
    fn name() -> String {
        T::name()
    }

    fn suffix() -> String {
        format!("[{LENGTH}]")
    }
}

/// A struct that both sides have.
pub trait CStruct {
    /// Its C++ declaration, with the size and each offset asserted.
    fn declare() -> String;
}

/// An enum that both sides have.
pub trait CEnum {
    /// Its C++ declaration.
    fn declare() -> String;
}

/// A field of a struct, as the compiler laid it out.
pub struct Field {
    /// Its name on both sides.
    pub name: &'static str,
    /// Name and suffix of its type, see [`CType`].
    pub c_type: [String; 2],
    /// Its offset in bytes.
    pub offset: usize,
    /// The kernel writes what it points to.
    pub written: bool,
}

/// The declaration of a struct. Pointers whose memory the kernel only reads are to constants.
pub fn declare_struct(name: &str, size: usize, align: usize, fields: &[Field]) -> String {
    let mut text = format!("struct alignas({align}) {name} {{\n");
    for Field { name, c_type: [c_type, suffix], written, .. } in fields {
        let constant = if c_type.ends_with('*') && !written { "const " } else { "" };
        text += &format!("    {constant}{c_type} {name}{suffix};\n");
    }
    text += &format!("}};\nstatic_assert(sizeof({name}) == {size}, \"size\");\n");
    for field in fields {
        let (field, offset) = (field.name, field.offset);
        text += &format!("static_assert(offsetof({name}, {field}) == {offset}, \"offset\");\n");
    }
    text
}

/// Declares a `repr(C)` struct for both sides. A field marked `=> written` points to memory that
/// the kernel writes, any other pointer to memory that it only reads.
macro_rules! shared_struct {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $($(#[$doc:meta])* $visible:vis $field:ident: $type:ty $(=> $written:ident)?,)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct $name {
            $($(#[$doc])* $(#[doc = concat!("Memory is ", stringify!($written), ".")])?
            $visible $field: $type,)*
        }

        impl $crate::describe::CStruct for $name {
            fn declare() -> String {
                $crate::describe::declare_struct(
                    stringify!($name),
                    size_of::<Self>(),
                    align_of::<Self>(),
                    &[$($crate::describe::Field {
                        name: stringify!($field),
                        c_type: [
                            <$type as $crate::describe::CType>::name(),
                            <$type as $crate::describe::CType>::suffix(),
                        ],
                        offset: std::mem::offset_of!(Self, $field),
                        written: [$(stringify!($written) == "written",)? false][0],
                    },)*],
                )
            }
        }

        impl $crate::describe::CType for $name {
            fn name() -> String {
                stringify!($name).to_owned()
            }
        }
    };
}
pub(crate) use shared_struct;

/// Declares a `repr(u32)` enum for both sides; in C++ its variants begin with the prefix given.
macro_rules! shared_enum {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident as $prefix:literal {
            $($(#[$doc:meta])* $variant:ident = $value:literal,)*
        }
    ) => {
        $(#[$attribute])*
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $variant = $value,)*
        }

        impl $crate::describe::CEnum for $name {
            fn declare() -> String {
                let variants = concat!(
                    $("    ", $prefix, stringify!($variant), " = ", stringify!($value), ",\n",)*
                );
                format!("enum {} : uint32_t {{\n{variants}}};\n", stringify!($name))
            }
        }
    };
}
pub(crate) use shared_enum;
