"""How one task is adapted: by gradient steps (`inner`) or in closed form (`kernel`)."""
