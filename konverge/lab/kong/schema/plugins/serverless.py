"""Serverless: aws-lambda and azure-functions."""

from __future__ import annotations

from konverge.lab.kong.schema import typedefs as t
from konverge.lab.kong.schema.checks import mutually_required
from konverge.lab.kong.schema.fields import boolean, integer, number, string
from konverge.lab.kong.schema.plugins.base import PluginSchema

PLUGINS = (
    PluginSchema(
        "aws-lambda",
        {
            "timeout": number(required=True, default=60000),
            "keepalive": number(required=True, default=60000),
            "aws_key": string(secret=True),
            "aws_secret": string(secret=True),
            "aws_assume_role_arn": string(secret=True),
            "aws_role_session_name": string(default="kong"),
            "aws_sts_endpoint_url": t.url(),
            "aws_region": string(),
            "function_name": string(),
            "qualifier": string(),
            "invocation_type": string(
                required=True, default="RequestResponse", one_of=("RequestResponse", "Event", "DryRun")
            ),
            "log_type": string(required=True, default="Tail", one_of=("Tail", "None")),
            "host": t.host(),
            "port": t.port(default=443),
            "disable_https": boolean(default=False),
            "unhandled_status": integer(between=(100, 999)),
            "forward_request_method": boolean(default=False),
            "forward_request_uri": boolean(default=False),
            "forward_request_headers": boolean(default=False),
            "forward_request_body": boolean(default=False),
            "is_proxy_integration": boolean(default=False),
            "awsgateway_compatible": boolean(default=False),
            "awsgateway_compatible_payload_version": string(default="1.0", one_of=("1.0", "2.0")),
            "proxy_url": t.url(),
            "skip_large_bodies": boolean(default=True),
            "base64_encode_body": boolean(default=True),
            "aws_imds_protocol_version": string(required=True, default="v1", one_of=("v1", "v2")),
            "empty_arrays_mode": string(required=True, default="legacy", one_of=("legacy", "correct")),
        },
        checks=(mutually_required("config.aws_key", "config.aws_secret"),),
    ),
    PluginSchema(
        "azure-functions",
        {
            "timeout": number(default=600000),
            "keepalive": number(default=60000),
            "https": boolean(default=True),
            "https_verify": boolean(default=False),
            "apikey": string(secret=True),
            "clientid": string(secret=True),
            "appname": string(required=True),
            "hostdomain": string(required=True, default="azurewebsites.net"),
            "routeprefix": string(default="api"),
            "functionname": string(required=True),
        },
    ),
)
