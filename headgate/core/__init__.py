"""The ground: names on the wire, values and parts that every room may import."""
