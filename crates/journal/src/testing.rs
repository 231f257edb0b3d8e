pub(crate) struct Story;
