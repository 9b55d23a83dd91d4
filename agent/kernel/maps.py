"""Elements of our nftables maps, which have a value beside the key.

Source: include/uapi/linux/netfilter/nf_tables.h, NFTA_SET_ELEM_DATA.
"""

from typing import Final

from agent.kernel.elements import DATA_VALUE, ELEMENT_KEY, LIST_ELEMENTS, Family, add_element, list_elements
from agent.kernel.wire import Request, attribute, nested

_LIST_ELEMENT: Final = 1
_ELEMENT_DATA: Final = 2


def add_pair(family: Family, map_name: str, key: bytes, value: bytes) -> Request:
    """Add an element to a map; again with the same value is no error."""
    pair = nested(ELEMENT_KEY, attribute(DATA_VALUE, key)) + nested(_ELEMENT_DATA, attribute(DATA_VALUE, value))
    body = list_elements(family, map_name).body + nested(LIST_ELEMENTS, nested(_LIST_ELEMENT, pair))
    return add_element(family, map_name, key)._replace(body=body)
