//! Typed device addresses.

use std::{fmt, marker::PhantomData, num::NonZeroU64};

/// The address of the first of some `T`s in device memory (or in mapped host memory, as the device
/// sees it). It owns nothing and carries no length: whoever builds one vouches for both.
///
/// `Option<DevicePtr<T>>` is passed to the kernels as a pointer that may be null.
#[repr(transparent)]
pub struct DevicePtr<T>(NonZeroU64, PhantomData<*const T>);

impl<T> DevicePtr<T> {
    /// From a `CUdeviceptr`; `None` for address zero.
    pub fn new(address: u64) -> Option<Self> {
        NonZeroU64::new(address).map(|address| Self(address, PhantomData))
    }

    /// The `CUdeviceptr`.
    pub fn address(self) -> u64 {
        self.0.get()
    }

    /// The address of the element `count` places further on.
    pub fn offset(self, count: usize) -> Self {
        let bytes = (count * size_of::<T>()) as u64;
        Self(self.0.checked_add(bytes).expect("device addresses use 48 bits"), PhantomData)
    }

    /// The same address read as another type.
    pub fn cast<U>(self) -> DevicePtr<U> {
        DevicePtr(self.0, PhantomData)
    }
}

impl<T> Clone for DevicePtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DevicePtr<T> {}

impl<T> PartialEq for DevicePtr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for DevicePtr<T> {}

impl<T> fmt::Debug for DevicePtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

// SAFETY: the address is a number; only kernels dereference it, and they run on the device.
unsafe impl<T> Send for DevicePtr<T> {}
// SAFETY: as for `Send`.
unsafe impl<T> Sync for DevicePtr<T> {}
