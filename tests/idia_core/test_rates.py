"""Rates and prices, from several places."""

from pathlib import Path

import pytest
from upath import UPath

from idia_core.errors import ConfigError, MissingInputError
from idia_core.rates import Known, Prices, Rate, Rates, RatesFile, read_rates

SHIPPED = RatesFile(
    rates={
        "scan": Rate(unit="captions", cpu=1000.0, measured="a laptop"),
        "embed": Rate(unit="pictures", cpu=10.0, gpu=500.0, measured="a laptop"),
    }
)


def test_the_first_place_that_knows_counts() -> None:
    """Field by field: a rate for GPUs of one file leaves the other file's for CPUs as it is."""
    own = RatesFile(rates={"embed": Rate(gpu=2000.0)})
    rates = Rates([("own.yaml", own)], SHIPPED)
    assert rates.of("embed", "gpu") == Known(2000.0, "pictures", "own.yaml")
    assert rates.of("embed", "cpu") == Known(10.0, "pictures", "a laptop")
    assert rates.given("embed", "gpu") == rates.of("embed", "gpu")
    assert rates.given("embed", "cpu") is None
    assert rates.of("scan", "gpu") is None
    assert rates.of("unheard of", "cpu") is None


def test_prices_are_those_of_the_first_place_that_gives_any() -> None:
    """Without any there are none."""
    priced = RatesFile(prices=Prices(gpu_hour=2.5))
    other = RatesFile(prices=Prices(cpu_hour=1))
    assert Rates([("a", RatesFile()), ("b", priced), ("c", other)], SHIPPED).prices.gpu_hour == 2.5
    assert Rates([], SHIPPED).prices == Prices()


def test_a_file_of_rates_is_strict(tmp_path: Path) -> None:
    """Unknown fields, rates of zero and missing files are errors that name them."""
    file = UPath(tmp_path / "rates.yaml")
    file.write_text("prices: {cpu_hour: 0.05, currency: EUR}\nrates:\n  scan: {cpu: 1e6}\n")
    read = read_rates(file)
    assert (read.prices.currency, read.rates["scan"].cpu) == ("EUR", 1e6)
    for text, complaint in (("rates: {scan: {tpu: 1}}", "tpu"), ("rates: {scan: {cpu: 0}}", "scan.cpu")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=complaint):
            read_rates(file)
    with pytest.raises(MissingInputError, match="--rates"):
        read_rates(UPath(tmp_path / "none.yaml"))
