//! The walk through an object: a serializer that writes nothing and looks at sizes.

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::{Part, Parts, Stop};

/// Values whose size is fixed.
macro_rules! small {
    ($($name:ident: $of:ty),*) => {
        $(fn $name(self, _: $of) -> Result<(), Stop> { Ok(()) })*
    };
}

impl<'a> Serializer for Part<'a> {
    type Ok = ();
    type Error = Stop;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    small! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_f32: f32,
        serialize_f64: f64, serialize_char: char, serialize_unit_struct: &'static str
    }

    fn serialize_str(self, text: &str) -> Result<(), Stop> {
        // The definitions count characters; a text has no more of them than bytes.
        match self.at_most(text.len(), "characters") {
            Ok(()) => Ok(()),
            Err(_) => self.at_most(text.chars().count(), "characters"),
        }
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Stop> {
        self.at_most(bytes.len(), "bytes")
    }

    fn serialize_none(self) -> Result<(), Stop> {
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Stop> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Stop> {
        value.serialize(self)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Stop> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Stop> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Result<(), Stop> {
        Parts::new(self).field(name, value)
    }

    fn serialize_seq(self, size: Option<usize>) -> Result<Parts<'a>, Stop> {
        self.at_most(size.unwrap_or_default(), "entries")?;
        Ok(Parts::new(self))
    }

    fn serialize_tuple(self, size: usize) -> Result<Parts<'a>, Stop> {
        self.serialize_seq(Some(size))
    }

    fn serialize_tuple_struct(self, _: &'static str, size: usize) -> Result<Parts<'a>, Stop> {
        self.serialize_seq(Some(size))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        size: usize,
    ) -> Result<Parts<'a>, Stop> {
        self.serialize_seq(Some(size))
    }

    fn serialize_map(self, size: Option<usize>) -> Result<Parts<'a>, Stop> {
        self.at_most(size.unwrap_or_default(), "entries")?;
        Ok(Parts::new(self))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts<'a>, Stop> {
        Ok(Parts::new(self))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, Stop> {
        Ok(Parts::new(self))
    }
}

/// What has items.
macro_rules! items {
    ($($of:ident: $method:ident),*) => {
        $(impl $of for Parts<'_> {
            type Ok = ();
            type Error = Stop;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Stop> {
                self.item(value)
            }

            fn end(self) -> Result<(), Stop> {
                self.of.at_most(self.count, "entries")
            }
        })*
    };
}

items! {
    SerializeSeq: serialize_element, SerializeTuple: serialize_element, SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field
}

/// What has named fields.
macro_rules! fields {
    ($($of:ident),*) => {
        $(impl $of for Parts<'_> {
            type Ok = ();
            type Error = Stop;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Stop> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Stop> {
                Ok(())
            }
        })*
    };
}

fields! { SerializeStruct, SerializeStructVariant }

impl SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Stop;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Stop> {
        let key = serde_json::to_value(key).map_err(|_| Stop::Other)?;
        self.key = key.as_str().unwrap_or_default().to_owned();
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Stop> {
        let key = std::mem::take(&mut self.key);
        self.field(&key, value)
    }

    fn end(self) -> Result<(), Stop> {
        self.of.at_most(self.count, "entries")
    }
}
