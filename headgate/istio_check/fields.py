"""The fields of Istio's kinds, up to 1.31, by their names in YAML.

A field that is not here is a spelling mistake: what reads it elsewhere may leave it out in silence.
A mapping has the fields of an object, or of each object of a list; `NAME` stands for a key that
people choose. A set has the words that a field takes; `ANY` is not looked into.
"""

from typing import TypeAlias

Fields: TypeAlias = "dict[str, Fields] | frozenset[str] | None"

ANY: Fields = None
NAME = "*"


def _words(text: str) -> Fields:
    return frozenset(text.split())


def _values(text: str, **others: Fields) -> dict[str, Fields]:
    """Fields with plain values, and others with fields of their own."""
    return {**dict.fromkeys(text.split(), ANY), **others}


_LABELS: Fields = {NAME: ANY}
_SELECTOR = _values("", matchLabels=_LABELS)
_TARGET = _values("group kind name namespace")
_PORT = _values("number protocol name targetPort")
_MATCH = _values("exact prefix regex")

_TCP_POOL = _values(
    "maxConnections connectTimeout maxConnectionDuration idleTimeout",
    tcpKeepalive=_values("probes time interval"),
)
_HTTP_POOL = _values(
    "http1MaxPendingRequests http2MaxRequests maxRequestsPerConnection maxRetries idleTimeout"
    " useClientProtocol maxConcurrentStreams",
    http2KeepAlive=_values("interval timeout"),
    h2UpgradePolicy=_words("DEFAULT DO_NOT_UPGRADE UPGRADE"),
)
_CONNECTION_POOL = _values("", tcp=_TCP_POOL, http=_HTTP_POOL)
_CONSISTENT_HASH = _values(
    "httpHeaderName useSourceIp httpQueryParameterName minimumRingSize",
    httpCookie=_values("name path ttl", attributes=_values("name value")),
    ringHash=_values("minimumRingSize"),
    maglev=_values("tableSize"),
)
_LOCALITY = _values(
    "enabled failoverPriority",
    distribute=_values("from", to={NAME: ANY}),
    failover=_values("from to"),
)
_ZONES = _values("enabled failoverPriority minClusterSize", failover=_values("from to"))
_LOAD_BALANCER = _values(
    "warmupDurationSecs",
    simple=_words("UNSPECIFIED LEAST_CONN RANDOM PASSTHROUGH ROUND_ROBIN LEAST_REQUEST"),
    consistentHash=_CONSISTENT_HASH,
    localityLbSetting=_LOCALITY,
    zoneAwareLbSetting=_ZONES,
    warmup=_values("duration minimumPercent aggression"),
)
_OUTLIERS = _values(
    "consecutiveErrors splitExternalLocalOriginErrors consecutiveLocalOriginFailures"
    " consecutiveGatewayErrors consecutive5xxErrors interval baseEjectionTime maxEjectionPercent"
    " minHealthPercent outlierDetectionHttpErrorCodes"
)
_CLIENT_TLS = _values(
    "clientCertificate privateKey caCertificates credentialName subjectAltNames sni"
    " insecureSkipVerify caCrl",
    mode=_words("DISABLE SIMPLE MUTUAL ISTIO_MUTUAL"),
)
_PORT_POLICY = _values(
    "",
    port=_values("number"),
    loadBalancer=_LOAD_BALANCER,
    connectionPool=_CONNECTION_POOL,
    outlierDetection=_OUTLIERS,
    tls=_CLIENT_TLS,
)
_TRAFFIC_POLICY: dict[str, Fields] = {
    **{key: value for key, value in _PORT_POLICY.items() if key != "port"},
    "portLevelSettings": _PORT_POLICY,
    "tunnel": _values("protocol targetHost targetPort"),
    "proxyProtocol": _values("", version=_words("V1 V2")),
    "retryBudget": _values("percent budgetInterval minRetryConcurrency"),
}
_DESTINATION_RULE = _values(
    "host exportTo",
    trafficPolicy=_TRAFFIC_POLICY,
    subsets=_values("name", labels=_LABELS, trafficPolicy=_TRAFFIC_POLICY),
    workloadSelector=_SELECTOR,
)

_DESTINATION = _values("host subset", port=_values("number"))
_HEADER_CHANGE = _values("remove", set={NAME: ANY}, add={NAME: ANY})
_HEADERS = _values("", request=_HEADER_CHANGE, response=_HEADER_CHANGE)
_HTTP_MATCH = _values(
    "name port gateways ignoreUriCase sourceNamespace statPrefix",
    uri=_MATCH,
    scheme=_MATCH,
    method=_MATCH,
    authority=_MATCH,
    headers={NAME: _MATCH},
    withoutHeaders={NAME: _MATCH},
    queryParams={NAME: _MATCH},
    sourceLabels=_LABELS,
)
_FAULT = _values(
    "",
    delay=_values("percent fixedDelay exponentialDelay", percentage=_values("value")),
    abort=_values("httpStatus grpcStatus http2Error", percentage=_values("value")),
)
_HTTP_ROUTE = _values(
    "name timeout mirrorPercent mirror_percent",
    match=_HTTP_MATCH,
    route=_values("weight", destination=_DESTINATION, headers=_HEADERS),
    redirect=_values(
        "uri prefixRewrite authority port scheme redirectCode",
        derivePort=_words("FROM_PROTOCOL_DEFAULT FROM_REQUEST_PORT"),
    ),
    directResponse=_values("status", body=_values("string bytes")),
    delegate=_values("name namespace"),
    rewrite=_values("uri authority", uriRegexRewrite=_values("match rewrite")),
    retries=_values(
        "attempts perTryTimeout retryOn retryRemoteLocalities retryIgnorePreviousHosts backoff"
    ),
    fault=_FAULT,
    mirror=_DESTINATION,
    mirrors=_values("", destination=_DESTINATION, percentage=_values("value")),
    mirrorPercentage=_values("value"),
    corsPolicy=_values(
        "allowOrigin allowMethods allowHeaders exposeHeaders maxAge allowCredentials",
        unmatchedPreflights=_words("UNSPECIFIED FORWARD IGNORE"),
        allowOrigins=_MATCH,
    ),
    headers=_HEADERS,
)
_L4_MATCH = "destinationSubnets port sourceNamespace gateways"
_L4_ROUTE = _values("weight", destination=_DESTINATION)
_VIRTUAL_SERVICE = _values(
    "hosts gateways exportTo",
    http=_HTTP_ROUTE,
    tls=_values("", match=_values(f"sniHosts {_L4_MATCH}", sourceLabels=_LABELS), route=_L4_ROUTE),
    tcp=_values(
        "", match=_values(f"sourceSubnet {_L4_MATCH}", sourceLabels=_LABELS), route=_L4_ROUTE
    ),
)

_SERVER_TLS = _values(
    "httpsRedirect serverCertificate privateKey caCertificates caCrl credentialName"
    " credentialNames caCertCredentialName subjectAltNames verifyCertificateSpki"
    " verifyCertificateHash cipherSuites insecureSkipVerify",
    tlsCertificates=_values("serverCertificate privateKey caCertificates"),
    mode=_words("PASSTHROUGH SIMPLE MUTUAL AUTO_PASSTHROUGH ISTIO_MUTUAL OPTIONAL_MUTUAL"),
    minProtocolVersion=_words("TLS_AUTO TLSV1_0 TLSV1_1 TLSV1_2 TLSV1_3"),
    maxProtocolVersion=_words("TLS_AUTO TLSV1_0 TLSV1_1 TLSV1_2 TLSV1_3"),
)
_GATEWAY = _values(
    "",
    selector=_LABELS,
    servers=_values("bind hosts defaultEndpoint name", port=_PORT, tls=_SERVER_TLS),
)

_CAPTURE = _words("DEFAULT IPTABLES NONE")
_SIDECAR = _values(
    "",
    workloadSelector=_values("", labels=_LABELS),
    ingress=_values(
        "bind defaultEndpoint",
        port=_PORT,
        captureMode=_CAPTURE,
        tls=_SERVER_TLS,
        connectionPool=_CONNECTION_POOL,
    ),
    egress=_values("bind hosts", port=_PORT, captureMode=_CAPTURE),
    inboundConnectionPool=_CONNECTION_POOL,
    outboundTrafficPolicy=_values(
        "", mode=_words("REGISTRY_ONLY ALLOW_ANY"), egressProxy=_DESTINATION
    ),
)
_SERVICE_ENTRY = _values(
    "hosts addresses exportTo subjectAltNames",
    ports=_PORT,
    location=_words("MESH_EXTERNAL MESH_INTERNAL"),
    resolution=_words("NONE STATIC DNS DNS_ROUND_ROBIN DYNAMIC_DNS"),
    endpoints=_values(
        "address network locality weight serviceAccount", ports={NAME: ANY}, labels=_LABELS
    ),
    workloadSelector=_values("", labels=_LABELS),
)

_PLACES = {"selector": _SELECTOR, "targetRef": _TARGET, "targetRefs": _TARGET}
_AUTHORIZATION_POLICY = _values(
    "",
    **_PLACES,
    action=_words("ALLOW DENY AUDIT CUSTOM"),
    provider=_values("name"),
    rules=_values(
        "",
        **{
            "from": _values(
                "",
                source=_values(
                    "principals notPrincipals requestPrincipals notRequestPrincipals namespaces"
                    " notNamespaces trustDomains notTrustDomains ipBlocks notIpBlocks"
                    " remoteIpBlocks notRemoteIpBlocks serviceAccounts notServiceAccounts"
                ),
            )
        },
        to=_values(
            "",
            operation=_values("hosts notHosts ports notPorts methods notMethods paths notPaths"),
        ),
        when=_values("key values notValues"),
    ),
)
_MTLS = _values("", mode=_words("UNSET DISABLE PERMISSIVE STRICT"))
_PEER_AUTHENTICATION = _values("", selector=_SELECTOR, mtls=_MTLS, portLevelMtls={NAME: _MTLS})
_REQUEST_AUTHENTICATION = _values(
    "",
    **_PLACES,
    jwtRules=_values(
        "issuer audiences jwksUri jwks_uri jwks fromParams outputPayloadToHeader fromCookies"
        " forwardOriginalToken timeout spaceDelimitedClaims",
        fromHeaders=_values("name prefix"),
        outputClaimToHeaders=_values("header claim"),
    ),
)

_WHO = _words("CLIENT_AND_SERVER CLIENT SERVER")
_PROVIDERS = _values("name")
_TELEMETRY = _values(
    "",
    **_PLACES,
    tracing=_values(
        "randomSamplingPercentage disableSpanReporting useRequestIdForTraceSampling"
        " enableIstioTags disableContextPropagation",
        match=_values("", mode=_WHO),
        providers=_PROVIDERS,
        customTags={
            NAME: _values(
                "",
                literal=_values("value"),
                environment=_values("name defaultValue"),
                header=_values("name defaultValue"),
                formatter=_values("value"),
            )
        },
    ),
    metrics=_values(
        "reportingInterval",
        providers=_PROVIDERS,
        overrides=_values(
            "disabled",
            match=_values(
                "customMetric",
                metric=_words(
                    "ALL_METRICS REQUEST_COUNT REQUEST_DURATION REQUEST_SIZE RESPONSE_SIZE"
                    " TCP_OPENED_CONNECTIONS TCP_CLOSED_CONNECTIONS TCP_SENT_BYTES"
                    " TCP_RECEIVED_BYTES GRPC_REQUEST_MESSAGES GRPC_RESPONSE_MESSAGES"
                ),
                mode=_WHO,
            ),
            tagOverrides={NAME: _values("value", operation=_words("UPSERT REMOVE"))},
        ),
    ),
    accessLogging=_values(
        "disabled",
        match=_values("", mode=_WHO),
        providers=_PROVIDERS,
        filter=_values("expression"),
    ),
)

_FILTER = _values("name", subFilter=_values("name"))
_ENVOY_FILTER = _values(
    "priority",
    workloadSelector=_values("", labels=_LABELS),
    targetRefs=_TARGET,
    configPatches=_values(
        "applyTo",  # which there are: rules/envoy.py
        match=_values(
            "",
            context=_words("ANY SIDECAR_INBOUND SIDECAR_OUTBOUND GATEWAY WAYPOINT"),
            proxy=_values("proxyVersion", metadata={NAME: ANY}),
            listener=_values(
                "portNumber portName name listenerFilter",
                filterChain=_values(
                    "name sni transportProtocol applicationProtocols destinationPort",
                    filter=_FILTER,
                ),
            ),
            routeConfiguration=_values(
                "portNumber portName gateway name",
                vhost=_values(
                    "name domainName",
                    route=_values("name", action=_words("ANY ROUTE REDIRECT DIRECT_RESPONSE")),
                ),
            ),
            cluster=_values("portNumber service subset name"),
            waypoint=_values("portNumber", filter=_FILTER, route=_values("name")),
        ),
        patch=_values(
            "filterClass value",  # what may stand there: rules/patches.py and rules/envoy.py
            operation=_words(
                "MERGE ADD REMOVE INSERT_BEFORE INSERT_AFTER INSERT_FIRST REPLACE"
                " MERGE_AND_REPLACE_LIST"
            ),
        ),
    ),
)

FIELDS: dict[tuple[str, str], Fields] = {
    ("networking.istio.io", "DestinationRule"): _DESTINATION_RULE,
    ("networking.istio.io", "EnvoyFilter"): _ENVOY_FILTER,
    ("networking.istio.io", "Gateway"): _GATEWAY,
    ("networking.istio.io", "ServiceEntry"): _SERVICE_ENTRY,
    ("networking.istio.io", "Sidecar"): _SIDECAR,
    ("networking.istio.io", "VirtualService"): _VIRTUAL_SERVICE,
    ("security.istio.io", "AuthorizationPolicy"): _AUTHORIZATION_POLICY,
    ("security.istio.io", "PeerAuthentication"): _PEER_AUTHENTICATION,
    ("security.istio.io", "RequestAuthentication"): _REQUEST_AUTHENTICATION,
    ("telemetry.istio.io", "Telemetry"): _TELEMETRY,
}
"""By group and kind; what stands in `spec`."""
