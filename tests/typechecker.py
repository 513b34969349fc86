"""The checker of annotations that tests/test_types.py hands to jaxtyping: beartype, for which an int is a float too."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
