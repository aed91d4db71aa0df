"""Terms of every data set that the package knows: those with an adapter, and the packages of the embedded sample."""

from functools import cache

from vividmed.data.adapters import adapter_names, get_adapter
from vividmed.data.sample.sources import ARCHIVES, NONCOMMERCIAL_ARCHIVES
from vividmed.data.terms import DatasetTerms


@cache
def known_terms() -> tuple[DatasetTerms, ...]:
    """Terms to compare with those that a data set states; see :func:`vividmed.data.terms.terms_of_rows`."""
    return (*(DatasetTerms.of(get_adapter(name)) for name in adapter_names()), *sample_terms())


@cache
def sample_terms() -> tuple[DatasetTerms, ...]:
    """Terms of the packages that the embedded sample is taken from."""
    return tuple(
        DatasetTerms(
            name=f"images of the package {archive}",
            licence=archive.licence,
            access="open",
            redistribute="derived_gated",
            homepage=f"the Python package index, {archive.package}",
            citation=f"{archive.package} {archive.version}",
            terms="the licence is that of the package; where its pixels come from is mostly not stated",
            source=str(archive),
        )
        for archive in (*ARCHIVES, *NONCOMMERCIAL_ARCHIVES)
    )
