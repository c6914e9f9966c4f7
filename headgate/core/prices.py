"""The price book of a model: what each kind of token costs, and from when. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from hashlib import sha256
from operator import mul

from msgspec import Struct

_THOUSANDTHS_PER_NANO = 1000
_DIGEST_DIGITS = 12


@lru_cache(maxsize=4_096)  # once for each price, not for each request
def _of_token(per_million: Decimal) -> int:
    return int(per_million.scaleb(6).to_integral_value(ROUND_CEILING))


@lru_cache(maxsize=4_096)
def _of_one(price: Decimal) -> int:
    return int(price.scaleb(12).to_integral_value(ROUND_CEILING))


class TokenWeights(Struct, frozen=True, gc=False):
    """The amount that a token of each kind adds to a counter, in thousandths of its unit.

    `request` is what the request itself adds, `audio_second` a second of its audio.
    """

    input: int = 1000
    cached_input: int = 1000
    output: int = 1000
    request: int = 0
    audio_second: int = 0

    def kept(self) -> "TokenWeights":
        """The weights for an answer from the answer cache: nothing was computed for its tokens."""
        each = self.cached_input
        return TokenWeights(each, each, each, self.request)


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of a model per million tokens of each kind, in the currency of the policy.

    `reasoning` None costs as output, of which it is a part. `audio_second` and `request` are the
    prices of one. `cached_answer` is the price of all tokens of an answer from the answer cache;
    None costs as cached input.
    """

    input: Decimal = Decimal(0)
    cached_input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)
    reasoning: Decimal | None = None
    audio_second: Decimal = Decimal(0)
    request: Decimal = Decimal(0)
    cached_answer: Decimal | None = None
    per_token: TokenWeights = field(init=False, repr=False, compare=False)
    """The weights of a limit of cost, in thousandths of a nano of the currency.

    That is a millionth of a millionth. It is exact for prices with up to six decimals, the most
    that the policy file accepts. Other prices are rounded up. A limit does not know reasoning from
    other output: it takes the dearer price of the two.
    """
    per_kept_token: TokenWeights = field(init=False, repr=False, compare=False)
    """The same for an answer from the answer cache."""
    _thousandths: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """The price of one of each kind in thousandths of a nano, in the order of `by_kind`."""

    def __post_init__(self) -> None:
        output = max(self.output, self._reasoning)
        weights = TokenWeights(
            input=_of_token(self.input),
            cached_input=_of_token(self.cached_input),
            output=_of_token(output),
            request=_of_one(self.request),
            audio_second=_of_one(self.audio_second),
        )
        object.__setattr__(self, "per_token", weights)
        kept = _of_token(self.cached_input if self.cached_answer is None else self.cached_answer)
        kept_weights = TokenWeights(kept, kept, kept, weights.request)
        object.__setattr__(self, "per_kept_token", kept_weights)
        rates = (self.input, self.cached_input, self.output, self._reasoning)
        each = (*map(_of_token, rates), *map(_of_one, (self.audio_second, self.request)))
        object.__setattr__(self, "_thousandths", each)

    @property
    def _reasoning(self) -> Decimal:
        return self.output if self.reasoning is None else self.reasoning

    def cost(
        self,
        input: int,
        cached_input: int,
        output: int,
        *,
        reasoning: int = 0,
        audio_seconds: int = 0,
        requests: int = 0,
    ) -> int:
        """The cost of these numbers, in nanos, rounded up. `reasoning` is a part of `output`."""
        counts = (input, cached_input, output - reasoning, reasoning, audio_seconds, requests)
        thousandths: int = sum(map(mul, self._thousandths, counts))
        return -(-thousandths // _THOUSANDTHS_PER_NANO)

    def cost_of_kept(self, tokens: int, requests: int) -> int:
        """The cost of answers from the answer cache, in nanos, rounded up."""
        each = self.per_kept_token
        thousandths = tokens * each.input + requests * each.request
        return -(-thousandths // _THOUSANDTHS_PER_NANO)

    def by_kind(self) -> dict[str, str]:
        """The prices as plain decimal text, by kind; without that of cached answers if none is set.

        So a price book from before that kind keeps the names of its versions.
        """
        kinds = {
            "input": self.input,
            "cached_input": self.cached_input,
            "output": self.output,
            "reasoning": self._reasoning,
            "audio_second": self.audio_second,
            "request": self.request,
        }
        if self.cached_answer is not None:
            kinds["cached_answer"] = self.cached_answer
        return {kind: f"{price.normalize():f}" for kind, price in kinds.items()}


@dataclass(frozen=True, slots=True)
class PricePeriod:
    """Prices with their beginning, in seconds since the Unix epoch; None for since ever.

    They end when the next period of the book begins. `version` names their content: equal
    prices from the same moment in the same currency have the same one, in every policy.
    """

    from_s: float | None
    prices: Prices
    currency: str | None = None
    version: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        content = [self.from_s, self.currency, self.prices.by_kind()]
        digest = sha256(json.dumps(content).encode()).hexdigest()[:_DIGEST_DIGITS]
        object.__setattr__(self, "version", f"{_day(self.from_s)}.{digest}")


class Price(Struct, frozen=True):
    """The prices in force for a request, and the version that names them; None for no prices."""

    prices: Prices
    version: str | None = None


NO_PRICE = Price(Prices())
_FREE = NO_PRICE.prices.per_token


@dataclass(frozen=True, slots=True)
class PriceBook:
    """The periods of a model in the order of time, and those of its versions that have their own.

    Without a period a model is free.
    """

    periods: tuple[PricePeriod, ...] = ()
    of_versions: Mapping[str, tuple[PricePeriod, ...]] = field(default_factory=dict, hash=False)

    def at(self, now_s: float, version: str | None = None) -> Price:
        """The price at a moment. Before the first period there is none."""
        periods = self.of_versions.get(version or "", self.periods)
        found = _in_force(periods, now_s)
        return NO_PRICE if found is None else Price(found.prices, found.version)

    def weights(self, now_s: float, version: str | None = None) -> TokenWeights:
        """The weights of a limit of cost at a moment: those of the version, as records have them.

        Where the version is not known, each kind has the dearest one of all versions.
        """
        if version is not None:
            return self.at(now_s, version).prices.per_token
        found = [_in_force(one, now_s) for one in (self.periods, *self.of_versions.values())]
        each = [period.prices.per_token for period in found if period is not None]
        return dearest(each or [_FREE])

    @property
    def dearest_ever(self) -> TokenWeights:
        """The largest weights of all periods, for a rough bound."""
        return dearest([one.prices.per_token for one in self.all_periods] or [_FREE])

    def dearest_of(self, version: str) -> TokenWeights:
        """The largest weights of one version in all periods, for a rough bound."""
        periods = self.of_versions.get(version, self.periods)
        return dearest([one.prices.per_token for one in periods] or [_FREE])

    @property
    def all_periods(self) -> tuple[PricePeriod, ...]:
        """Those of the model and of its versions."""
        return self.periods + tuple(one for each in self.of_versions.values() for one in each)


def dearest(each: list[TokenWeights]) -> TokenWeights:
    """The largest weight of each kind."""
    return TokenWeights(
        max(one.input for one in each),
        max(one.cached_input for one in each),
        max(one.output for one in each),
        max(one.request for one in each),
        max(one.audio_second for one in each),
    )


def _in_force(periods: tuple[PricePeriod, ...], now_s: float) -> PricePeriod | None:
    for one in reversed(periods):
        if one.from_s is None or one.from_s <= now_s:
            return one
    return None


def _day(from_s: float | None) -> str:
    return "always" if from_s is None else f"{datetime.fromtimestamp(from_s, UTC):%Y-%m-%d}"
