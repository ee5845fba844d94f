"""Values of the domain: names, states, events and errors, with no input or output."""
