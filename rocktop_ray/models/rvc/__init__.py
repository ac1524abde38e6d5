"""RVC and Applio synthesizers: one network for every version, rate and decoder."""
