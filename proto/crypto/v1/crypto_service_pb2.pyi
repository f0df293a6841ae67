from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Interval(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INTERVAL_UNSPECIFIED: _ClassVar[Interval]
    INTERVAL_1S: _ClassVar[Interval]
    INTERVAL_1M: _ClassVar[Interval]
    INTERVAL_5M: _ClassVar[Interval]
    INTERVAL_15M: _ClassVar[Interval]
    INTERVAL_1H: _ClassVar[Interval]
    INTERVAL_4H: _ClassVar[Interval]
    INTERVAL_1D: _ClassVar[Interval]

class Condition(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONDITION_UNSPECIFIED: _ClassVar[Condition]
    CONDITION_ABOVE: _ClassVar[Condition]
    CONDITION_BELOW: _ClassVar[Condition]
    CONDITION_CROSSES: _ClassVar[Condition]
    CONDITION_MOVES: _ClassVar[Condition]
    CONDITION_STATE: _ClassVar[Condition]

class Direction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIRECTION_UNSPECIFIED: _ClassVar[Direction]
    DIRECTION_UP: _ClassVar[Direction]
    DIRECTION_DOWN: _ClassVar[Direction]
    DIRECTION_BOTH: _ClassVar[Direction]

class DeliveryState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DELIVERY_STATE_UNSPECIFIED: _ClassVar[DeliveryState]
    DELIVERY_STATE_WAITING: _ClassVar[DeliveryState]
    DELIVERY_STATE_DELIVERED: _ClassVar[DeliveryState]
    DELIVERY_STATE_FAILED: _ClassVar[DeliveryState]

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_STARTING: _ClassVar[State]
    STATE_SNAPSHOT: _ClassVar[State]
    STATE_LIVE: _ClassVar[State]
    STATE_STALE: _ClassVar[State]
    STATE_NOT_FOUND: _ClassVar[State]
    STATE_BLOCKED: _ClassVar[State]
    STATE_ERROR: _ClassVar[State]
    STATE_CLOSED: _ClassVar[State]

class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_UNSPECIFIED: _ClassVar[Source]
    SOURCE_SOCKET: _ClassVar[Source]
    SOURCE_DOM: _ClassVar[Source]
    SOURCE_SCRIPT: _ClassVar[Source]
    SOURCE_TITLE: _ClassVar[Source]
INTERVAL_UNSPECIFIED: Interval
INTERVAL_1S: Interval
INTERVAL_1M: Interval
INTERVAL_5M: Interval
INTERVAL_15M: Interval
INTERVAL_1H: Interval
INTERVAL_4H: Interval
INTERVAL_1D: Interval
CONDITION_UNSPECIFIED: Condition
CONDITION_ABOVE: Condition
CONDITION_BELOW: Condition
CONDITION_CROSSES: Condition
CONDITION_MOVES: Condition
CONDITION_STATE: Condition
DIRECTION_UNSPECIFIED: Direction
DIRECTION_UP: Direction
DIRECTION_DOWN: Direction
DIRECTION_BOTH: Direction
DELIVERY_STATE_UNSPECIFIED: DeliveryState
DELIVERY_STATE_WAITING: DeliveryState
DELIVERY_STATE_DELIVERED: DeliveryState
DELIVERY_STATE_FAILED: DeliveryState
STATE_UNSPECIFIED: State
STATE_STARTING: State
STATE_SNAPSHOT: State
STATE_LIVE: State
STATE_STALE: State
STATE_NOT_FOUND: State
STATE_BLOCKED: State
STATE_ERROR: State
STATE_CLOSED: State
SOURCE_UNSPECIFIED: Source
SOURCE_SOCKET: Source
SOURCE_DOM: Source
SOURCE_SCRIPT: Source
SOURCE_TITLE: Source

class AddTickerRequest(_message.Message):
    __slots__ = ("ticker",)
    TICKER_FIELD_NUMBER: _ClassVar[int]
    ticker: str
    def __init__(self, ticker: _Optional[str] = ...) -> None: ...

class AddTickerResponse(_message.Message):
    __slots__ = ("success", "message")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    success: bool
    message: str
    def __init__(self, success: _Optional[bool] = ..., message: _Optional[str] = ...) -> None: ...

class RemoveTickerRequest(_message.Message):
    __slots__ = ("ticker",)
    TICKER_FIELD_NUMBER: _ClassVar[int]
    ticker: str
    def __init__(self, ticker: _Optional[str] = ...) -> None: ...

class RemoveTickerResponse(_message.Message):
    __slots__ = ("success", "message")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    success: bool
    message: str
    def __init__(self, success: _Optional[bool] = ..., message: _Optional[str] = ...) -> None: ...

class RetryTickerRequest(_message.Message):
    __slots__ = ("ticker",)
    TICKER_FIELD_NUMBER: _ClassVar[int]
    ticker: str
    def __init__(self, ticker: _Optional[str] = ...) -> None: ...

class RetryTickerResponse(_message.Message):
    __slots__ = ("success", "message")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    success: bool
    message: str
    def __init__(self, success: _Optional[bool] = ..., message: _Optional[str] = ...) -> None: ...

class GetTickersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTickersResponse(_message.Message):
    __slots__ = ("tickers", "prices")
    TICKERS_FIELD_NUMBER: _ClassVar[int]
    PRICES_FIELD_NUMBER: _ClassVar[int]
    tickers: _containers.RepeatedScalarFieldContainer[str]
    prices: _containers.RepeatedCompositeFieldContainer[PriceUpdate]
    def __init__(self, tickers: _Optional[_Iterable[str]] = ..., prices: _Optional[_Iterable[_Union[PriceUpdate, _Mapping]]] = ...) -> None: ...

class GetHistoryRequest(_message.Message):
    __slots__ = ("ticker", "since", "until", "limit", "interval", "cursor")
    TICKER_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    ticker: str
    since: str
    until: str
    limit: int
    interval: Interval
    cursor: str
    def __init__(self, ticker: _Optional[str] = ..., since: _Optional[str] = ..., until: _Optional[str] = ..., limit: _Optional[int] = ..., interval: _Optional[_Union[Interval, str]] = ..., cursor: _Optional[str] = ...) -> None: ...

class GetHistoryResponse(_message.Message):
    __slots__ = ("points", "candles", "next", "recorded_since")
    POINTS_FIELD_NUMBER: _ClassVar[int]
    CANDLES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    RECORDED_SINCE_FIELD_NUMBER: _ClassVar[int]
    points: _containers.RepeatedCompositeFieldContainer[Point]
    candles: _containers.RepeatedCompositeFieldContainer[Candle]
    next: str
    recorded_since: int
    def __init__(self, points: _Optional[_Iterable[_Union[Point, _Mapping]]] = ..., candles: _Optional[_Iterable[_Union[Candle, _Mapping]]] = ..., next: _Optional[str] = ..., recorded_since: _Optional[int] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("at", "price_text", "timestamp", "source_time", "source", "state", "simulated", "shifted")
    AT_FIELD_NUMBER: _ClassVar[int]
    PRICE_TEXT_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_TIME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    SHIFTED_FIELD_NUMBER: _ClassVar[int]
    at: int
    price_text: str
    timestamp: int
    source_time: int
    source: Source
    state: State
    simulated: bool
    shifted: bool
    def __init__(self, at: _Optional[int] = ..., price_text: _Optional[str] = ..., timestamp: _Optional[int] = ..., source_time: _Optional[int] = ..., source: _Optional[_Union[Source, str]] = ..., state: _Optional[_Union[State, str]] = ..., simulated: _Optional[bool] = ..., shifted: _Optional[bool] = ...) -> None: ...

class Candle(_message.Message):
    __slots__ = ("start", "open", "high", "low", "close", "count", "gap", "is_open", "simulated")
    START_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    IS_OPEN_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    start: int
    open: str
    high: str
    low: str
    close: str
    count: int
    gap: bool
    is_open: bool
    simulated: bool
    def __init__(self, start: _Optional[int] = ..., open: _Optional[str] = ..., high: _Optional[str] = ..., low: _Optional[str] = ..., close: _Optional[str] = ..., count: _Optional[int] = ..., gap: _Optional[bool] = ..., is_open: _Optional[bool] = ..., simulated: _Optional[bool] = ...) -> None: ...

class Alert(_message.Message):
    __slots__ = ("id", "ticker", "condition", "value", "direction", "within", "repeat", "cooldown", "hysteresis", "across_gaps", "until", "note")
    ID_FIELD_NUMBER: _ClassVar[int]
    TICKER_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    WITHIN_FIELD_NUMBER: _ClassVar[int]
    REPEAT_FIELD_NUMBER: _ClassVar[int]
    COOLDOWN_FIELD_NUMBER: _ClassVar[int]
    HYSTERESIS_FIELD_NUMBER: _ClassVar[int]
    ACROSS_GAPS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    id: str
    ticker: str
    condition: Condition
    value: str
    direction: Direction
    within: int
    repeat: bool
    cooldown: int
    hysteresis: str
    across_gaps: bool
    until: int
    note: str
    def __init__(self, id: _Optional[str] = ..., ticker: _Optional[str] = ..., condition: _Optional[_Union[Condition, str]] = ..., value: _Optional[str] = ..., direction: _Optional[_Union[Direction, str]] = ..., within: _Optional[int] = ..., repeat: _Optional[bool] = ..., cooldown: _Optional[int] = ..., hysteresis: _Optional[str] = ..., across_gaps: _Optional[bool] = ..., until: _Optional[int] = ..., note: _Optional[str] = ...) -> None: ...

class CreateAlertRequest(_message.Message):
    __slots__ = ("alert", "replaces")
    ALERT_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    alert: Alert
    replaces: str
    def __init__(self, alert: _Optional[_Union[Alert, _Mapping]] = ..., replaces: _Optional[str] = ...) -> None: ...

class CreateAlertResponse(_message.Message):
    __slots__ = ("message", "alert")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ALERT_FIELD_NUMBER: _ClassVar[int]
    message: str
    alert: Alert
    def __init__(self, message: _Optional[str] = ..., alert: _Optional[_Union[Alert, _Mapping]] = ...) -> None: ...

class GetAlertsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetAlertsResponse(_message.Message):
    __slots__ = ("alerts",)
    ALERTS_FIELD_NUMBER: _ClassVar[int]
    alerts: _containers.RepeatedCompositeFieldContainer[Alert]
    def __init__(self, alerts: _Optional[_Iterable[_Union[Alert, _Mapping]]] = ...) -> None: ...

class DeleteAlertRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DeleteAlertResponse(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class GetRaisedAlertsRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class GetRaisedAlertsResponse(_message.Message):
    __slots__ = ("raised",)
    RAISED_FIELD_NUMBER: _ClassVar[int]
    raised: _containers.RepeatedCompositeFieldContainer[RaisedAlert]
    def __init__(self, raised: _Optional[_Iterable[_Union[RaisedAlert, _Mapping]]] = ...) -> None: ...

class RaisedAlert(_message.Message):
    __slots__ = ("id", "alert", "ticker", "condition", "value", "direction", "within", "note", "price", "price_text", "at", "gap", "simulated", "reason", "currency", "deliveries")
    ID_FIELD_NUMBER: _ClassVar[int]
    ALERT_FIELD_NUMBER: _ClassVar[int]
    TICKER_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    WITHIN_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    PRICE_TEXT_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    id: str
    alert: str
    ticker: str
    condition: Condition
    value: str
    direction: Direction
    within: int
    note: str
    price: float
    price_text: str
    at: int
    gap: bool
    simulated: bool
    reason: str
    currency: str
    deliveries: _containers.RepeatedCompositeFieldContainer[Delivery]
    def __init__(self, id: _Optional[str] = ..., alert: _Optional[str] = ..., ticker: _Optional[str] = ..., condition: _Optional[_Union[Condition, str]] = ..., value: _Optional[str] = ..., direction: _Optional[_Union[Direction, str]] = ..., within: _Optional[int] = ..., note: _Optional[str] = ..., price: _Optional[float] = ..., price_text: _Optional[str] = ..., at: _Optional[int] = ..., gap: _Optional[bool] = ..., simulated: _Optional[bool] = ..., reason: _Optional[str] = ..., currency: _Optional[str] = ..., deliveries: _Optional[_Iterable[_Union[Delivery, _Mapping]]] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("to", "state", "tries", "error", "next_try_at")
    TO_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TRIES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NEXT_TRY_AT_FIELD_NUMBER: _ClassVar[int]
    to: str
    state: DeliveryState
    tries: int
    error: str
    next_try_at: int
    def __init__(self, to: _Optional[str] = ..., state: _Optional[_Union[DeliveryState, str]] = ..., tries: _Optional[int] = ..., error: _Optional[str] = ..., next_try_at: _Optional[int] = ...) -> None: ...

class StreamPricesRequest(_message.Message):
    __slots__ = ("tickers", "max_rate", "all_states")
    TICKERS_FIELD_NUMBER: _ClassVar[int]
    MAX_RATE_FIELD_NUMBER: _ClassVar[int]
    ALL_STATES_FIELD_NUMBER: _ClassVar[int]
    tickers: _containers.RepeatedScalarFieldContainer[str]
    max_rate: float
    all_states: bool
    def __init__(self, tickers: _Optional[_Iterable[str]] = ..., max_rate: _Optional[float] = ..., all_states: _Optional[bool] = ...) -> None: ...

class PriceUpdate(_message.Message):
    __slots__ = ("ticker", "price", "change_percent", "timestamp", "price_text", "state", "source", "source_time", "received_at", "sequence", "change", "volume", "high", "low", "open", "bid", "ask", "currency", "exchange", "description", "calculated", "simulated", "reason", "next_try_at")
    TICKER_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    CHANGE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    PRICE_TEXT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_TIME_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    BID_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CALCULATED_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NEXT_TRY_AT_FIELD_NUMBER: _ClassVar[int]
    ticker: str
    price: float
    change_percent: float
    timestamp: int
    price_text: str
    state: State
    source: Source
    source_time: int
    received_at: int
    sequence: int
    change: float
    volume: float
    high: float
    low: float
    open: float
    bid: float
    ask: float
    currency: str
    exchange: str
    description: str
    calculated: bool
    simulated: bool
    reason: str
    next_try_at: int
    def __init__(self, ticker: _Optional[str] = ..., price: _Optional[float] = ..., change_percent: _Optional[float] = ..., timestamp: _Optional[int] = ..., price_text: _Optional[str] = ..., state: _Optional[_Union[State, str]] = ..., source: _Optional[_Union[Source, str]] = ..., source_time: _Optional[int] = ..., received_at: _Optional[int] = ..., sequence: _Optional[int] = ..., change: _Optional[float] = ..., volume: _Optional[float] = ..., high: _Optional[float] = ..., low: _Optional[float] = ..., open: _Optional[float] = ..., bid: _Optional[float] = ..., ask: _Optional[float] = ..., currency: _Optional[str] = ..., exchange: _Optional[str] = ..., description: _Optional[str] = ..., calculated: _Optional[bool] = ..., simulated: _Optional[bool] = ..., reason: _Optional[str] = ..., next_try_at: _Optional[int] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code",)
    CODE_FIELD_NUMBER: _ClassVar[int]
    code: str
    def __init__(self, code: _Optional[str] = ...) -> None: ...
