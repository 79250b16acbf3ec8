"""The OpenAPI description of the verifier's service (OpenAPI 3.1)."""

from typing import Any, Final

from broch.attest.checks import Outcome
from broch.attest.result import Status

_TEXT: Final = {"type": "string"}
_MAYBE_TEXT: Final = {"type": ["string", "null"]}


def document() -> dict[str, Any]:
    """The description, as plain data."""
    from broch import __version__

    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Broch verifier",
            "version": __version__,
            "description": "Is evidence of a trusted execution environment authentic, and does "
            "this server's policy accept it?",
        },
        "paths": {"/verify": {"post": _verify()}},
        "components": {"schemas": {"Result": _result(), "Request": _request()}},
    }


def _verify() -> dict[str, Any]:
    result = {"application/json": {"schema": {"$ref": "#/components/schemas/Result"}}}
    meanings = {
        "200": "accepted; nothing else is",
        "400": "the request or the evidence is malformed",
        "403": "not authentic, or authentic and refused by the policy",
        "408": "the request did not come whole in time",
        "413": "the request is too long",
        "503": "undecided: an endorsement is missing",
    }
    return {
        "summary": "Verify and appraise evidence",
        "parameters": [
            {
                "name": "nonce",
                "in": "query",
                "description": "the challenge that was sent, in hex; with evidence as it is",
                "schema": {"type": "string", "pattern": "^([0-9a-fA-F]{2}){8,1024}$"},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                "text/plain": {"schema": _TEXT},
                "application/json": {"schema": {"$ref": "#/components/schemas/Request"}},
            },
        },
        "responses": {
            code: {"description": text, "content": result} for code, text in meanings.items()
        },
    }


def _request() -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["evidence"],
        "properties": {
            "evidence": {"type": "string", "contentEncoding": "base64"},
            "nonce": {"type": "string", "description": "hex"},
            "endorsements": {
                "type": "object",
                "description": "collateral, certificates and revocation lists, base64; no keys",
                "additionalProperties": {"type": "string", "contentEncoding": "base64"},
            },
        },
    }


def _result() -> dict[str, Any]:
    check = {
        "type": "object",
        "properties": {
            "rule": _TEXT,
            "outcome": {"enum": [item.value for item in Outcome]},
            "why": _TEXT,
        },
    }
    part = {
        "type": "object",
        "properties": {
            "tee": _TEXT,
            "claims": {"type": ["object", "null"]},
            "trustworthiness": {"type": "object", "additionalProperties": {"type": "integer"}},
            "checks": {"type": "array", "items": check},
        },
    }
    error = {
        "type": ["object", "null"],
        "properties": {
            "code": _TEXT,
            "check": {
                "type": ["string", "null"],
                "description": "the rule of the first check that failed",
            },
            "message": _TEXT,
            "hint": _MAYBE_TEXT,
        },
    }
    return {
        "type": "object",
        "required": ["status", "exit_code", "error"],
        "properties": {
            "status": {"enum": [status.value for status in Status]},
            "exit_code": {"type": "integer"},
            "tee": {"type": "array", "items": _TEXT},
            "emulated": {"type": "boolean"},
            "at": {"type": "string", "format": "date-time"},
            "nonce": _MAYBE_TEXT,
            "policy": _TEXT,
            "relaxations": {"type": "array", "items": _TEXT},
            "evidence_sha256": _TEXT,
            "error": error,
            "parts": {"type": "array", "items": part},
            "explanation": {"type": "array", "items": _TEXT},
            "ear": {"type": ["string", "null"], "description": "the signed result, a JWT"},
        },
    }
