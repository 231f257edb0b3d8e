//! Values that keep their place for life, in chunks: growing moves none of them.
//!
//! A vector that doubles copies all it has. At a million locks everybody would wait for that copy,
//! and memory would hold both. A place that has become free is taken again, the last one first.

use std::ops::{Index, IndexMut};

/// The place of a value.
pub(crate) type Place = u32;

/// How many values a chunk has.
const CHUNK: usize = 1024;

#[derive(Debug)]
enum Entry<T> {
    Full(T),
    /// Free, and which one was free before it.
    Free(Option<Place>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    chunks: Vec<Vec<Entry<T>>>,
    len: usize,
    /// The place that became free last.
    free: Option<Place>,
}

fn split(place: Place) -> (usize, usize) {
    let place = place as usize;
    (place / CHUNK, place % CHUNK)
}

impl<T> Arena<T> {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), len: 0, free: None }
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where the next value will be.
    pub(crate) fn next_place(&self) -> Place {
        // Without a free place there are as many values as places. More than 2^32 do not fit in
        // memory; `max_locks` and `max_waiters` end it long before.
        self.free.unwrap_or_else(|| Place::try_from(self.len).unwrap_or(Place::MAX))
    }

    pub(crate) fn insert(&mut self, value: T) -> Place {
        let place = self.next_place();
        let (chunk, at) = split(place);
        match self.chunks.get_mut(chunk).and_then(|chunk| chunk.get_mut(at)) {
            Some(entry) => {
                if let Entry::Free(before) = *entry {
                    self.free = before;
                }
                *entry = Entry::Full(value);
            }
            None => {
                if self.chunks.len() == chunk {
                    self.chunks.push(Vec::with_capacity(CHUNK));
                }
                self.chunks[chunk].push(Entry::Full(value));
            }
        }
        self.len += 1;
        place
    }

    pub(crate) fn get(&self, place: Place) -> Option<&T> {
        let (chunk, at) = split(place);
        match self.chunks.get(chunk)?.get(at)? {
            Entry::Full(value) => Some(value),
            Entry::Free(_) => None,
        }
    }

    pub(crate) fn get_mut(&mut self, place: Place) -> Option<&mut T> {
        let (chunk, at) = split(place);
        match self.chunks.get_mut(chunk)?.get_mut(at)? {
            Entry::Full(value) => Some(value),
            Entry::Free(_) => None,
        }
    }

    /// Takes the value out, if there is one.
    pub(crate) fn remove(&mut self, place: Place) -> Option<T> {
        self.get(place)?;
        let (chunk, at) = split(place);
        let entry = std::mem::replace(&mut self.chunks[chunk][at], Entry::Free(self.free));
        self.free = Some(place);
        self.len -= 1;
        match entry {
            Entry::Full(value) => Some(value),
            Entry::Free(_) => None,
        }
    }

    /// All values, by place.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Place, &T)> {
        let entries = self.chunks.iter().flatten();
        entries.zip(0..).filter_map(|(entry, place)| match entry {
            Entry::Full(value) => Some((place, value)),
            Entry::Free(_) => None,
        })
    }
}

impl<T> Index<Place> for Arena<T> {
    type Output = T;

    fn index(&self, place: Place) -> &T {
        let Some(value) = self.get(place) else { unreachable!("nothing is at {place}") };
        value
    }
}

impl<T> IndexMut<Place> for Arena<T> {
    fn index_mut(&mut self, place: Place) -> &mut T {
        let Some(value) = self.get_mut(place) else { unreachable!("nothing is at {place}") };
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_its_place_and_a_free_place_is_taken_again() {
        let mut arena = Arena::new();
        let count = 2 * CHUNK + 1;
        for number in 0..count {
            assert_eq!(arena.next_place() as usize, number);
            assert_eq!(arena.insert(number) as usize, number);
        }
        let first: *const usize = &arena[0];
        for place in [5, 2000, 7] {
            assert_eq!(arena.remove(place), Some(place as usize));
            assert_eq!(arena.remove(place), None);
            assert_eq!(arena.get(place), None);
        }
        assert_eq!(arena.len(), count - 3);
        assert_eq!(arena.iter().count(), count - 3);
        assert_eq!(arena.next_place(), 7);
        let taken: Vec<Place> = (0..4).map(|_| arena.insert(0)).collect();
        assert_eq!(taken, [7, 2000, 5, 2049]);
        arena[2000] = 1;
        assert_eq!((arena[2000], arena.len()), (1, count + 1));
        assert_eq!(arena.get(2050), None);
        assert!(std::ptr::eq(first, &arena[0]), "growing moves nothing");
        assert!(arena.iter().map(|(place, _)| place).eq(0..2050));
    }
}
