# mypy: disable-error-code="type-arg,import-untyped"
import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class IprevStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IPREV_STATUS_UNSPECIFIED: _ClassVar[IprevStatus]
    IPREV_STATUS_PASS: _ClassVar[IprevStatus]
    IPREV_STATUS_FAIL: _ClassVar[IprevStatus]
    IPREV_STATUS_TEMPERROR: _ClassVar[IprevStatus]
    IPREV_STATUS_PERMERROR: _ClassVar[IprevStatus]
    IPREV_STATUS_INTERNAL_ERROR: _ClassVar[IprevStatus]

class IprevProblem(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IPREV_PROBLEM_UNSPECIFIED: _ClassVar[IprevProblem]
    IPREV_PROBLEM_NO_NAME: _ClassVar[IprevProblem]
    IPREV_PROBLEM_NO_MATCH: _ClassVar[IprevProblem]
    IPREV_PROBLEM_DNS: _ClassVar[IprevProblem]
    IPREV_PROBLEM_LIMIT: _ClassVar[IprevProblem]
    IPREV_PROBLEM_INTERNAL: _ClassVar[IprevProblem]

class SpfStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPF_STATUS_UNSPECIFIED: _ClassVar[SpfStatus]
    SPF_STATUS_NONE: _ClassVar[SpfStatus]
    SPF_STATUS_NEUTRAL: _ClassVar[SpfStatus]
    SPF_STATUS_PASS: _ClassVar[SpfStatus]
    SPF_STATUS_FAIL: _ClassVar[SpfStatus]
    SPF_STATUS_SOFTFAIL: _ClassVar[SpfStatus]
    SPF_STATUS_TEMPERROR: _ClassVar[SpfStatus]
    SPF_STATUS_PERMERROR: _ClassVar[SpfStatus]
    SPF_STATUS_INTERNAL_ERROR: _ClassVar[SpfStatus]

class SpfIdentity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPF_IDENTITY_UNSPECIFIED: _ClassVar[SpfIdentity]
    SPF_IDENTITY_HELO: _ClassVar[SpfIdentity]
    SPF_IDENTITY_MAILFROM: _ClassVar[SpfIdentity]

class SpfProblem(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPF_PROBLEM_UNSPECIFIED: _ClassVar[SpfProblem]
    SPF_PROBLEM_NO_DOMAIN: _ClassVar[SpfProblem]
    SPF_PROBLEM_MALFORMED_PATH: _ClassVar[SpfProblem]
    SPF_PROBLEM_NO_RECORD: _ClassVar[SpfProblem]
    SPF_PROBLEM_SEVERAL_RECORDS: _ClassVar[SpfProblem]
    SPF_PROBLEM_SYNTAX: _ClassVar[SpfProblem]
    SPF_PROBLEM_TERM_LIMIT: _ClassVar[SpfProblem]
    SPF_PROBLEM_VOID_LIMIT: _ClassVar[SpfProblem]
    SPF_PROBLEM_TARGET: _ClassVar[SpfProblem]
    SPF_PROBLEM_DNS: _ClassVar[SpfProblem]
    SPF_PROBLEM_LIMIT: _ClassVar[SpfProblem]
    SPF_PROBLEM_INTERNAL: _ClassVar[SpfProblem]

class DkimStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DKIM_STATUS_UNSPECIFIED: _ClassVar[DkimStatus]
    DKIM_STATUS_PASS: _ClassVar[DkimStatus]
    DKIM_STATUS_FAIL: _ClassVar[DkimStatus]
    DKIM_STATUS_POLICY: _ClassVar[DkimStatus]
    DKIM_STATUS_NEUTRAL: _ClassVar[DkimStatus]
    DKIM_STATUS_TEMPERROR: _ClassVar[DkimStatus]
    DKIM_STATUS_PERMERROR: _ClassVar[DkimStatus]
    DKIM_STATUS_INTERNAL_ERROR: _ClassVar[DkimStatus]

class DkimProblem(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DKIM_PROBLEM_UNSPECIFIED: _ClassVar[DkimProblem]
    DKIM_PROBLEM_SYNTAX: _ClassVar[DkimProblem]
    DKIM_PROBLEM_VERSION: _ClassVar[DkimProblem]
    DKIM_PROBLEM_MISSING_TAG: _ClassVar[DkimProblem]
    DKIM_PROBLEM_BAD_DOMAIN: _ClassVar[DkimProblem]
    DKIM_PROBLEM_IDENTITY_MISMATCH: _ClassVar[DkimProblem]
    DKIM_PROBLEM_FROM_NOT_SIGNED: _ClassVar[DkimProblem]
    DKIM_PROBLEM_ALGORITHM: _ClassVar[DkimProblem]
    DKIM_PROBLEM_SHA1: _ClassVar[DkimProblem]
    DKIM_PROBLEM_CANONICALIZATION: _ClassVar[DkimProblem]
    DKIM_PROBLEM_QUERY_METHOD: _ClassVar[DkimProblem]
    DKIM_PROBLEM_TIMES: _ClassVar[DkimProblem]
    DKIM_PROBLEM_EXPIRED: _ClassVar[DkimProblem]
    DKIM_PROBLEM_NO_KEY: _ClassVar[DkimProblem]
    DKIM_PROBLEM_KEY_SYNTAX: _ClassVar[DkimProblem]
    DKIM_PROBLEM_KEY_REVOKED: _ClassVar[DkimProblem]
    DKIM_PROBLEM_KEY_TYPE: _ClassVar[DkimProblem]
    DKIM_PROBLEM_KEY_HASH: _ClassVar[DkimProblem]
    DKIM_PROBLEM_KEY_SERVICE: _ClassVar[DkimProblem]
    DKIM_PROBLEM_KEY_STRICT: _ClassVar[DkimProblem]
    DKIM_PROBLEM_KEY_TOO_SHORT: _ClassVar[DkimProblem]
    DKIM_PROBLEM_KEY_TOO_LONG: _ClassVar[DkimProblem]
    DKIM_PROBLEM_KEY_UNAVAILABLE: _ClassVar[DkimProblem]
    DKIM_PROBLEM_BODY_HASH: _ClassVar[DkimProblem]
    DKIM_PROBLEM_SIGNATURE: _ClassVar[DkimProblem]
    DKIM_PROBLEM_BODY_LENGTH: _ClassVar[DkimProblem]
    DKIM_PROBLEM_UNSIGNED_BODY: _ClassVar[DkimProblem]
    DKIM_PROBLEM_UNSIGNED_AUTHOR: _ClassVar[DkimProblem]
    DKIM_PROBLEM_TESTING: _ClassVar[DkimProblem]
    DKIM_PROBLEM_LIMIT: _ClassVar[DkimProblem]
    DKIM_PROBLEM_INTERNAL: _ClassVar[DkimProblem]

class DmarcStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DMARC_STATUS_UNSPECIFIED: _ClassVar[DmarcStatus]
    DMARC_STATUS_PASS: _ClassVar[DmarcStatus]
    DMARC_STATUS_FAIL: _ClassVar[DmarcStatus]
    DMARC_STATUS_NONE: _ClassVar[DmarcStatus]
    DMARC_STATUS_TEMPERROR: _ClassVar[DmarcStatus]
    DMARC_STATUS_PERMERROR: _ClassVar[DmarcStatus]
    DMARC_STATUS_INTERNAL_ERROR: _ClassVar[DmarcStatus]

class DmarcPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DMARC_POLICY_UNSPECIFIED: _ClassVar[DmarcPolicy]
    DMARC_POLICY_NONE: _ClassVar[DmarcPolicy]
    DMARC_POLICY_QUARANTINE: _ClassVar[DmarcPolicy]
    DMARC_POLICY_REJECT: _ClassVar[DmarcPolicy]

class PolicySource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POLICY_SOURCE_UNSPECIFIED: _ClassVar[PolicySource]
    POLICY_SOURCE_P: _ClassVar[PolicySource]
    POLICY_SOURCE_SP: _ClassVar[PolicySource]
    POLICY_SOURCE_NP: _ClassVar[PolicySource]

class AlignedBy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALIGNED_BY_UNSPECIFIED: _ClassVar[AlignedBy]
    ALIGNED_BY_SPF: _ClassVar[AlignedBy]
    ALIGNED_BY_DKIM: _ClassVar[AlignedBy]

class DiscoveryMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DISCOVERY_METHOD_UNSPECIFIED: _ClassVar[DiscoveryMethod]
    DISCOVERY_METHOD_TREEWALK: _ClassVar[DiscoveryMethod]
    DISCOVERY_METHOD_PSL: _ClassVar[DiscoveryMethod]

class DmarcProblem(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DMARC_PROBLEM_UNSPECIFIED: _ClassVar[DmarcProblem]
    DMARC_PROBLEM_NO_AUTHOR: _ClassVar[DmarcProblem]
    DMARC_PROBLEM_REPEATED_FROM: _ClassVar[DmarcProblem]
    DMARC_PROBLEM_MALFORMED_FROM: _ClassVar[DmarcProblem]
    DMARC_PROBLEM_SEVERAL_AUTHOR_DOMAINS: _ClassVar[DmarcProblem]
    DMARC_PROBLEM_UNUSABLE_RECORD: _ClassVar[DmarcProblem]
    DMARC_PROBLEM_DNS: _ClassVar[DmarcProblem]
    DMARC_PROBLEM_LIMIT: _ClassVar[DmarcProblem]
    DMARC_PROBLEM_INTERNAL: _ClassVar[DmarcProblem]

class Alignment(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALIGNMENT_UNSPECIFIED: _ClassVar[Alignment]
    ALIGNMENT_R: _ClassVar[Alignment]
    ALIGNMENT_S: _ClassVar[Alignment]

class Psd(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PSD_UNSPECIFIED: _ClassVar[Psd]
    PSD_Y: _ClassVar[Psd]
    PSD_N: _ClassVar[Psd]
    PSD_U: _ClassVar[Psd]

class ArcStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ARC_STATUS_UNSPECIFIED: _ClassVar[ArcStatus]
    ARC_STATUS_NONE: _ClassVar[ArcStatus]
    ARC_STATUS_PASS: _ClassVar[ArcStatus]
    ARC_STATUS_FAIL: _ClassVar[ArcStatus]
    ARC_STATUS_INTERNAL_ERROR: _ClassVar[ArcStatus]

class ArcProblem(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ARC_PROBLEM_UNSPECIFIED: _ClassVar[ArcProblem]
    ARC_PROBLEM_INSTANCE: _ClassVar[ArcProblem]
    ARC_PROBLEM_TOO_MANY_SETS: _ClassVar[ArcProblem]
    ARC_PROBLEM_INCOMPLETE: _ClassVar[ArcProblem]
    ARC_PROBLEM_REPEATED: _ClassVar[ArcProblem]
    ARC_PROBLEM_FAILED_BEFORE: _ClassVar[ArcProblem]
    ARC_PROBLEM_CHAIN_VALUE: _ClassVar[ArcProblem]
    ARC_PROBLEM_SEAL_NAMES_FIELDS: _ClassVar[ArcProblem]
    ARC_PROBLEM_SYNTAX: _ClassVar[ArcProblem]
    ARC_PROBLEM_MISSING_TAG: _ClassVar[ArcProblem]
    ARC_PROBLEM_BAD_DOMAIN: _ClassVar[ArcProblem]
    ARC_PROBLEM_ALGORITHM: _ClassVar[ArcProblem]
    ARC_PROBLEM_COVERS_SEAL: _ClassVar[ArcProblem]
    ARC_PROBLEM_TIMES: _ClassVar[ArcProblem]
    ARC_PROBLEM_NO_KEY: _ClassVar[ArcProblem]
    ARC_PROBLEM_KEY: _ClassVar[ArcProblem]
    ARC_PROBLEM_BODY_HASH: _ClassVar[ArcProblem]
    ARC_PROBLEM_MESSAGE_SIGNATURE: _ClassVar[ArcProblem]
    ARC_PROBLEM_SEAL: _ClassVar[ArcProblem]
    ARC_PROBLEM_DNS: _ClassVar[ArcProblem]
    ARC_PROBLEM_LIMIT: _ClassVar[ArcProblem]
    ARC_PROBLEM_INTERNAL: _ClassVar[ArcProblem]

class ArcCheck(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ARC_CHECK_UNSPECIFIED: _ClassVar[ArcCheck]
    ARC_CHECK_PASS: _ClassVar[ArcCheck]
    ARC_CHECK_FAIL: _ClassVar[ArcCheck]
    ARC_CHECK_UNCHECKED: _ClassVar[ArcCheck]

class BimiStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BIMI_STATUS_UNSPECIFIED: _ClassVar[BimiStatus]
    BIMI_STATUS_PASS: _ClassVar[BimiStatus]
    BIMI_STATUS_NONE: _ClassVar[BimiStatus]
    BIMI_STATUS_FAIL: _ClassVar[BimiStatus]
    BIMI_STATUS_TEMPERROR: _ClassVar[BimiStatus]
    BIMI_STATUS_DECLINED: _ClassVar[BimiStatus]
    BIMI_STATUS_SKIPPED: _ClassVar[BimiStatus]
    BIMI_STATUS_INTERNAL_ERROR: _ClassVar[BimiStatus]

class BimiProblem(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BIMI_PROBLEM_UNSPECIFIED: _ClassVar[BimiProblem]
    BIMI_PROBLEM_NO_SINGLE_AUTHOR: _ClassVar[BimiProblem]
    BIMI_PROBLEM_DMARC_NOT_PASS: _ClassVar[BimiProblem]
    BIMI_PROBLEM_POLICY_NOT_ENFORCING: _ClassVar[BimiProblem]
    BIMI_PROBLEM_NO_ALIGNED_DKIM: _ClassVar[BimiProblem]
    BIMI_PROBLEM_BROAD_SPF: _ClassVar[BimiProblem]
    BIMI_PROBLEM_NO_CERTIFICATE: _ClassVar[BimiProblem]
    BIMI_PROBLEM_MARK_TYPE: _ClassVar[BimiProblem]
    BIMI_PROBLEM_EVIDENCE_PENDING: _ClassVar[BimiProblem]
    BIMI_PROBLEM_EVIDENCE_NOT_FETCHED: _ClassVar[BimiProblem]
    BIMI_PROBLEM_NO_RECORD: _ClassVar[BimiProblem]
    BIMI_PROBLEM_SEVERAL_RECORDS: _ClassVar[BimiProblem]
    BIMI_PROBLEM_SYNTAX: _ClassVar[BimiProblem]
    BIMI_PROBLEM_TOO_LONG: _ClassVar[BimiProblem]
    BIMI_PROBLEM_NO_LOCATION: _ClassVar[BimiProblem]
    BIMI_PROBLEM_LOCATION: _ClassVar[BimiProblem]
    BIMI_PROBLEM_LOCATION_FORMAT: _ClassVar[BimiProblem]
    BIMI_PROBLEM_AUTHORITY: _ClassVar[BimiProblem]
    BIMI_PROBLEM_EVIDENCE: _ClassVar[BimiProblem]
    BIMI_PROBLEM_EXPIRED: _ClassVar[BimiProblem]
    BIMI_PROBLEM_NO_INDICATOR: _ClassVar[BimiProblem]
    BIMI_PROBLEM_DNS: _ClassVar[BimiProblem]
    BIMI_PROBLEM_LIMIT: _ClassVar[BimiProblem]
    BIMI_PROBLEM_DKIM_UNKNOWN: _ClassVar[BimiProblem]
    BIMI_PROBLEM_EVIDENCE_UNAVAILABLE: _ClassVar[BimiProblem]
    BIMI_PROBLEM_INTERNAL: _ClassVar[BimiProblem]

class SelectorSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SELECTOR_SOURCE_UNSPECIFIED: _ClassVar[SelectorSource]
    SELECTOR_SOURCE_DEFAULT: _ClassVar[SelectorSource]
    SELECTOR_SOURCE_HEADER: _ClassVar[SelectorSource]
    SELECTOR_SOURCE_LOCAL_PART: _ClassVar[SelectorSource]

class SelectorFault(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SELECTOR_FAULT_UNSPECIFIED: _ClassVar[SelectorFault]
    SELECTOR_FAULT_UNSIGNED: _ClassVar[SelectorFault]
    SELECTOR_FAULT_MALFORMED: _ClassVar[SelectorFault]
    SELECTOR_FAULT_REPEATED: _ClassVar[SelectorFault]

class Preference(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PREFERENCE_UNSPECIFIED: _ClassVar[Preference]
    PREFERENCE_BRAND: _ClassVar[Preference]
    PREFERENCE_PERSONAL: _ClassVar[Preference]

class EvidenceStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVIDENCE_STATUS_UNSPECIFIED: _ClassVar[EvidenceStatus]
    EVIDENCE_STATUS_PASS: _ClassVar[EvidenceStatus]
    EVIDENCE_STATUS_FAIL: _ClassVar[EvidenceStatus]
    EVIDENCE_STATUS_TEMPERROR: _ClassVar[EvidenceStatus]
    EVIDENCE_STATUS_NONE: _ClassVar[EvidenceStatus]

class Disposition(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DISPOSITION_UNSPECIFIED: _ClassVar[Disposition]
    DISPOSITION_ACCEPT: _ClassVar[Disposition]
    DISPOSITION_QUARANTINE: _ClassVar[Disposition]
    DISPOSITION_REJECT: _ClassVar[Disposition]
    DISPOSITION_TEMPFAIL: _ClassVar[Disposition]
    DISPOSITION_DISCARD: _ClassVar[Disposition]

class OverrideReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OVERRIDE_REASON_UNSPECIFIED: _ClassVar[OverrideReason]
    OVERRIDE_REASON_LOCAL_POLICY: _ClassVar[OverrideReason]
    OVERRIDE_REASON_MAILING_LIST: _ClassVar[OverrideReason]
    OVERRIDE_REASON_TRUSTED_FORWARDER: _ClassVar[OverrideReason]
    OVERRIDE_REASON_POLICY_TEST_MODE: _ClassVar[OverrideReason]
    OVERRIDE_REASON_OTHER: _ClassVar[OverrideReason]

class Origin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORIGIN_UNSPECIFIED: _ClassVar[Origin]
    ORIGIN_INTERNET: _ClassVar[Origin]
    ORIGIN_SUBMISSION: _ClassVar[Origin]
    ORIGIN_INTERNAL: _ClassVar[Origin]
    ORIGIN_TRUSTED_HOP: _ClassVar[Origin]
    ORIGIN_TRUSTED_RELAY: _ClassVar[Origin]

class DefectKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEFECT_KIND_UNSPECIFIED: _ClassVar[DefectKind]
    DEFECT_KIND_NOT_A_FIELD: _ClassVar[DefectKind]
    DEFECT_KIND_LEADING_CONTINUATION: _ClassVar[DefectKind]
    DEFECT_KIND_SPACE_BEFORE_COLON: _ClassVar[DefectKind]
    DEFECT_KIND_FIELD_NAME: _ClassVar[DefectKind]
    DEFECT_KIND_NUL: _ClassVar[DefectKind]
    DEFECT_KIND_BARE_CR: _ClassVar[DefectKind]
    DEFECT_KIND_BARE_LF: _ClassVar[DefectKind]
    DEFECT_KIND_EIGHT_BIT: _ClassVar[DefectKind]
    DEFECT_KIND_NOT_UTF8: _ClassVar[DefectKind]
    DEFECT_KIND_REPEATED_SINGLETON: _ClassVar[DefectKind]
    DEFECT_KIND_LONG_LINE: _ClassVar[DefectKind]
    DEFECT_KIND_TOO_MANY_FIELDS: _ClassVar[DefectKind]
    DEFECT_KIND_TOO_LARGE: _ClassVar[DefectKind]

class AuthorProblem(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUTHOR_PROBLEM_UNSPECIFIED: _ClassVar[AuthorProblem]
    AUTHOR_PROBLEM_NO_AUTHOR: _ClassVar[AuthorProblem]
    AUTHOR_PROBLEM_REPEATED_FROM: _ClassVar[AuthorProblem]
    AUTHOR_PROBLEM_MALFORMED_FROM: _ClassVar[AuthorProblem]
    AUTHOR_PROBLEM_SEVERAL_AUTHOR_DOMAINS: _ClassVar[AuthorProblem]
IPREV_STATUS_UNSPECIFIED: IprevStatus
IPREV_STATUS_PASS: IprevStatus
IPREV_STATUS_FAIL: IprevStatus
IPREV_STATUS_TEMPERROR: IprevStatus
IPREV_STATUS_PERMERROR: IprevStatus
IPREV_STATUS_INTERNAL_ERROR: IprevStatus
IPREV_PROBLEM_UNSPECIFIED: IprevProblem
IPREV_PROBLEM_NO_NAME: IprevProblem
IPREV_PROBLEM_NO_MATCH: IprevProblem
IPREV_PROBLEM_DNS: IprevProblem
IPREV_PROBLEM_LIMIT: IprevProblem
IPREV_PROBLEM_INTERNAL: IprevProblem
SPF_STATUS_UNSPECIFIED: SpfStatus
SPF_STATUS_NONE: SpfStatus
SPF_STATUS_NEUTRAL: SpfStatus
SPF_STATUS_PASS: SpfStatus
SPF_STATUS_FAIL: SpfStatus
SPF_STATUS_SOFTFAIL: SpfStatus
SPF_STATUS_TEMPERROR: SpfStatus
SPF_STATUS_PERMERROR: SpfStatus
SPF_STATUS_INTERNAL_ERROR: SpfStatus
SPF_IDENTITY_UNSPECIFIED: SpfIdentity
SPF_IDENTITY_HELO: SpfIdentity
SPF_IDENTITY_MAILFROM: SpfIdentity
SPF_PROBLEM_UNSPECIFIED: SpfProblem
SPF_PROBLEM_NO_DOMAIN: SpfProblem
SPF_PROBLEM_MALFORMED_PATH: SpfProblem
SPF_PROBLEM_NO_RECORD: SpfProblem
SPF_PROBLEM_SEVERAL_RECORDS: SpfProblem
SPF_PROBLEM_SYNTAX: SpfProblem
SPF_PROBLEM_TERM_LIMIT: SpfProblem
SPF_PROBLEM_VOID_LIMIT: SpfProblem
SPF_PROBLEM_TARGET: SpfProblem
SPF_PROBLEM_DNS: SpfProblem
SPF_PROBLEM_LIMIT: SpfProblem
SPF_PROBLEM_INTERNAL: SpfProblem
DKIM_STATUS_UNSPECIFIED: DkimStatus
DKIM_STATUS_PASS: DkimStatus
DKIM_STATUS_FAIL: DkimStatus
DKIM_STATUS_POLICY: DkimStatus
DKIM_STATUS_NEUTRAL: DkimStatus
DKIM_STATUS_TEMPERROR: DkimStatus
DKIM_STATUS_PERMERROR: DkimStatus
DKIM_STATUS_INTERNAL_ERROR: DkimStatus
DKIM_PROBLEM_UNSPECIFIED: DkimProblem
DKIM_PROBLEM_SYNTAX: DkimProblem
DKIM_PROBLEM_VERSION: DkimProblem
DKIM_PROBLEM_MISSING_TAG: DkimProblem
DKIM_PROBLEM_BAD_DOMAIN: DkimProblem
DKIM_PROBLEM_IDENTITY_MISMATCH: DkimProblem
DKIM_PROBLEM_FROM_NOT_SIGNED: DkimProblem
DKIM_PROBLEM_ALGORITHM: DkimProblem
DKIM_PROBLEM_SHA1: DkimProblem
DKIM_PROBLEM_CANONICALIZATION: DkimProblem
DKIM_PROBLEM_QUERY_METHOD: DkimProblem
DKIM_PROBLEM_TIMES: DkimProblem
DKIM_PROBLEM_EXPIRED: DkimProblem
DKIM_PROBLEM_NO_KEY: DkimProblem
DKIM_PROBLEM_KEY_SYNTAX: DkimProblem
DKIM_PROBLEM_KEY_REVOKED: DkimProblem
DKIM_PROBLEM_KEY_TYPE: DkimProblem
DKIM_PROBLEM_KEY_HASH: DkimProblem
DKIM_PROBLEM_KEY_SERVICE: DkimProblem
DKIM_PROBLEM_KEY_STRICT: DkimProblem
DKIM_PROBLEM_KEY_TOO_SHORT: DkimProblem
DKIM_PROBLEM_KEY_TOO_LONG: DkimProblem
DKIM_PROBLEM_KEY_UNAVAILABLE: DkimProblem
DKIM_PROBLEM_BODY_HASH: DkimProblem
DKIM_PROBLEM_SIGNATURE: DkimProblem
DKIM_PROBLEM_BODY_LENGTH: DkimProblem
DKIM_PROBLEM_UNSIGNED_BODY: DkimProblem
DKIM_PROBLEM_UNSIGNED_AUTHOR: DkimProblem
DKIM_PROBLEM_TESTING: DkimProblem
DKIM_PROBLEM_LIMIT: DkimProblem
DKIM_PROBLEM_INTERNAL: DkimProblem
DMARC_STATUS_UNSPECIFIED: DmarcStatus
DMARC_STATUS_PASS: DmarcStatus
DMARC_STATUS_FAIL: DmarcStatus
DMARC_STATUS_NONE: DmarcStatus
DMARC_STATUS_TEMPERROR: DmarcStatus
DMARC_STATUS_PERMERROR: DmarcStatus
DMARC_STATUS_INTERNAL_ERROR: DmarcStatus
DMARC_POLICY_UNSPECIFIED: DmarcPolicy
DMARC_POLICY_NONE: DmarcPolicy
DMARC_POLICY_QUARANTINE: DmarcPolicy
DMARC_POLICY_REJECT: DmarcPolicy
POLICY_SOURCE_UNSPECIFIED: PolicySource
POLICY_SOURCE_P: PolicySource
POLICY_SOURCE_SP: PolicySource
POLICY_SOURCE_NP: PolicySource
ALIGNED_BY_UNSPECIFIED: AlignedBy
ALIGNED_BY_SPF: AlignedBy
ALIGNED_BY_DKIM: AlignedBy
DISCOVERY_METHOD_UNSPECIFIED: DiscoveryMethod
DISCOVERY_METHOD_TREEWALK: DiscoveryMethod
DISCOVERY_METHOD_PSL: DiscoveryMethod
DMARC_PROBLEM_UNSPECIFIED: DmarcProblem
DMARC_PROBLEM_NO_AUTHOR: DmarcProblem
DMARC_PROBLEM_REPEATED_FROM: DmarcProblem
DMARC_PROBLEM_MALFORMED_FROM: DmarcProblem
DMARC_PROBLEM_SEVERAL_AUTHOR_DOMAINS: DmarcProblem
DMARC_PROBLEM_UNUSABLE_RECORD: DmarcProblem
DMARC_PROBLEM_DNS: DmarcProblem
DMARC_PROBLEM_LIMIT: DmarcProblem
DMARC_PROBLEM_INTERNAL: DmarcProblem
ALIGNMENT_UNSPECIFIED: Alignment
ALIGNMENT_R: Alignment
ALIGNMENT_S: Alignment
PSD_UNSPECIFIED: Psd
PSD_Y: Psd
PSD_N: Psd
PSD_U: Psd
ARC_STATUS_UNSPECIFIED: ArcStatus
ARC_STATUS_NONE: ArcStatus
ARC_STATUS_PASS: ArcStatus
ARC_STATUS_FAIL: ArcStatus
ARC_STATUS_INTERNAL_ERROR: ArcStatus
ARC_PROBLEM_UNSPECIFIED: ArcProblem
ARC_PROBLEM_INSTANCE: ArcProblem
ARC_PROBLEM_TOO_MANY_SETS: ArcProblem
ARC_PROBLEM_INCOMPLETE: ArcProblem
ARC_PROBLEM_REPEATED: ArcProblem
ARC_PROBLEM_FAILED_BEFORE: ArcProblem
ARC_PROBLEM_CHAIN_VALUE: ArcProblem
ARC_PROBLEM_SEAL_NAMES_FIELDS: ArcProblem
ARC_PROBLEM_SYNTAX: ArcProblem
ARC_PROBLEM_MISSING_TAG: ArcProblem
ARC_PROBLEM_BAD_DOMAIN: ArcProblem
ARC_PROBLEM_ALGORITHM: ArcProblem
ARC_PROBLEM_COVERS_SEAL: ArcProblem
ARC_PROBLEM_TIMES: ArcProblem
ARC_PROBLEM_NO_KEY: ArcProblem
ARC_PROBLEM_KEY: ArcProblem
ARC_PROBLEM_BODY_HASH: ArcProblem
ARC_PROBLEM_MESSAGE_SIGNATURE: ArcProblem
ARC_PROBLEM_SEAL: ArcProblem
ARC_PROBLEM_DNS: ArcProblem
ARC_PROBLEM_LIMIT: ArcProblem
ARC_PROBLEM_INTERNAL: ArcProblem
ARC_CHECK_UNSPECIFIED: ArcCheck
ARC_CHECK_PASS: ArcCheck
ARC_CHECK_FAIL: ArcCheck
ARC_CHECK_UNCHECKED: ArcCheck
BIMI_STATUS_UNSPECIFIED: BimiStatus
BIMI_STATUS_PASS: BimiStatus
BIMI_STATUS_NONE: BimiStatus
BIMI_STATUS_FAIL: BimiStatus
BIMI_STATUS_TEMPERROR: BimiStatus
BIMI_STATUS_DECLINED: BimiStatus
BIMI_STATUS_SKIPPED: BimiStatus
BIMI_STATUS_INTERNAL_ERROR: BimiStatus
BIMI_PROBLEM_UNSPECIFIED: BimiProblem
BIMI_PROBLEM_NO_SINGLE_AUTHOR: BimiProblem
BIMI_PROBLEM_DMARC_NOT_PASS: BimiProblem
BIMI_PROBLEM_POLICY_NOT_ENFORCING: BimiProblem
BIMI_PROBLEM_NO_ALIGNED_DKIM: BimiProblem
BIMI_PROBLEM_BROAD_SPF: BimiProblem
BIMI_PROBLEM_NO_CERTIFICATE: BimiProblem
BIMI_PROBLEM_MARK_TYPE: BimiProblem
BIMI_PROBLEM_EVIDENCE_PENDING: BimiProblem
BIMI_PROBLEM_EVIDENCE_NOT_FETCHED: BimiProblem
BIMI_PROBLEM_NO_RECORD: BimiProblem
BIMI_PROBLEM_SEVERAL_RECORDS: BimiProblem
BIMI_PROBLEM_SYNTAX: BimiProblem
BIMI_PROBLEM_TOO_LONG: BimiProblem
BIMI_PROBLEM_NO_LOCATION: BimiProblem
BIMI_PROBLEM_LOCATION: BimiProblem
BIMI_PROBLEM_LOCATION_FORMAT: BimiProblem
BIMI_PROBLEM_AUTHORITY: BimiProblem
BIMI_PROBLEM_EVIDENCE: BimiProblem
BIMI_PROBLEM_EXPIRED: BimiProblem
BIMI_PROBLEM_NO_INDICATOR: BimiProblem
BIMI_PROBLEM_DNS: BimiProblem
BIMI_PROBLEM_LIMIT: BimiProblem
BIMI_PROBLEM_DKIM_UNKNOWN: BimiProblem
BIMI_PROBLEM_EVIDENCE_UNAVAILABLE: BimiProblem
BIMI_PROBLEM_INTERNAL: BimiProblem
SELECTOR_SOURCE_UNSPECIFIED: SelectorSource
SELECTOR_SOURCE_DEFAULT: SelectorSource
SELECTOR_SOURCE_HEADER: SelectorSource
SELECTOR_SOURCE_LOCAL_PART: SelectorSource
SELECTOR_FAULT_UNSPECIFIED: SelectorFault
SELECTOR_FAULT_UNSIGNED: SelectorFault
SELECTOR_FAULT_MALFORMED: SelectorFault
SELECTOR_FAULT_REPEATED: SelectorFault
PREFERENCE_UNSPECIFIED: Preference
PREFERENCE_BRAND: Preference
PREFERENCE_PERSONAL: Preference
EVIDENCE_STATUS_UNSPECIFIED: EvidenceStatus
EVIDENCE_STATUS_PASS: EvidenceStatus
EVIDENCE_STATUS_FAIL: EvidenceStatus
EVIDENCE_STATUS_TEMPERROR: EvidenceStatus
EVIDENCE_STATUS_NONE: EvidenceStatus
DISPOSITION_UNSPECIFIED: Disposition
DISPOSITION_ACCEPT: Disposition
DISPOSITION_QUARANTINE: Disposition
DISPOSITION_REJECT: Disposition
DISPOSITION_TEMPFAIL: Disposition
DISPOSITION_DISCARD: Disposition
OVERRIDE_REASON_UNSPECIFIED: OverrideReason
OVERRIDE_REASON_LOCAL_POLICY: OverrideReason
OVERRIDE_REASON_MAILING_LIST: OverrideReason
OVERRIDE_REASON_TRUSTED_FORWARDER: OverrideReason
OVERRIDE_REASON_POLICY_TEST_MODE: OverrideReason
OVERRIDE_REASON_OTHER: OverrideReason
ORIGIN_UNSPECIFIED: Origin
ORIGIN_INTERNET: Origin
ORIGIN_SUBMISSION: Origin
ORIGIN_INTERNAL: Origin
ORIGIN_TRUSTED_HOP: Origin
ORIGIN_TRUSTED_RELAY: Origin
DEFECT_KIND_UNSPECIFIED: DefectKind
DEFECT_KIND_NOT_A_FIELD: DefectKind
DEFECT_KIND_LEADING_CONTINUATION: DefectKind
DEFECT_KIND_SPACE_BEFORE_COLON: DefectKind
DEFECT_KIND_FIELD_NAME: DefectKind
DEFECT_KIND_NUL: DefectKind
DEFECT_KIND_BARE_CR: DefectKind
DEFECT_KIND_BARE_LF: DefectKind
DEFECT_KIND_EIGHT_BIT: DefectKind
DEFECT_KIND_NOT_UTF8: DefectKind
DEFECT_KIND_REPEATED_SINGLETON: DefectKind
DEFECT_KIND_LONG_LINE: DefectKind
DEFECT_KIND_TOO_MANY_FIELDS: DefectKind
DEFECT_KIND_TOO_LARGE: DefectKind
AUTHOR_PROBLEM_UNSPECIFIED: AuthorProblem
AUTHOR_PROBLEM_NO_AUTHOR: AuthorProblem
AUTHOR_PROBLEM_REPEATED_FROM: AuthorProblem
AUTHOR_PROBLEM_MALFORMED_FROM: AuthorProblem
AUTHOR_PROBLEM_SEVERAL_AUTHOR_DOMAINS: AuthorProblem

class VerifyRequest(_message.Message):
    __slots__ = ("id", "message", "session", "envelope", "options")
    ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    id: str
    message: bytes
    session: Session
    envelope: Envelope
    options: VerifyOptions
    def __init__(self, id: _Optional[str] = ..., message: _Optional[bytes] = ..., session: _Optional[_Union[Session, _Mapping]] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ..., options: _Optional[_Union[VerifyOptions, _Mapping]] = ...) -> None: ...

class VerifyResponse(_message.Message):
    __slots__ = ("id", "verdict", "mail")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    MAIL_FIELD_NUMBER: _ClassVar[int]
    id: str
    verdict: Verdict
    mail: Mail
    def __init__(self, id: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., mail: _Optional[_Union[Mail, _Mapping]] = ...) -> None: ...

class VerifyStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: VerifyRequest
    def __init__(self, request: _Optional[_Union[VerifyRequest, _Mapping]] = ...) -> None: ...

class VerifyStreamResponse(_message.Message):
    __slots__ = ("id", "response", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    response: VerifyResponse
    error: _status_pb2.Status
    def __init__(self, id: _Optional[str] = ..., response: _Optional[_Union[VerifyResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class VerifyUploadRequest(_message.Message):
    __slots__ = ("start", "chunk")
    START_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    start: VerifyUploadStart
    chunk: bytes
    def __init__(self, start: _Optional[_Union[VerifyUploadStart, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class VerifyUploadStart(_message.Message):
    __slots__ = ("id", "session", "envelope", "options")
    ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    id: str
    session: Session
    envelope: Envelope
    options: VerifyOptions
    def __init__(self, id: _Optional[str] = ..., session: _Optional[_Union[Session, _Mapping]] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ..., options: _Optional[_Union[VerifyOptions, _Mapping]] = ...) -> None: ...

class VerifyUploadResponse(_message.Message):
    __slots__ = ("id", "verdict", "mail")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    MAIL_FIELD_NUMBER: _ClassVar[int]
    id: str
    verdict: Verdict
    mail: Mail
    def __init__(self, id: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., mail: _Optional[_Union[Mail, _Mapping]] = ...) -> None: ...

class VerifyOptions(_message.Message):
    __slots__ = ("policy", "authserv_id", "now", "origin", "record", "explain", "zone")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    AUTHSERV_ID_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    policy: str
    authserv_id: str
    now: _timestamp_pb2.Timestamp
    origin: Origin
    record: bool
    explain: bool
    zone: _struct_pb2.Struct
    def __init__(self, policy: _Optional[str] = ..., authserv_id: _Optional[str] = ..., now: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., origin: _Optional[_Union[Origin, str]] = ..., record: _Optional[bool] = ..., explain: _Optional[bool] = ..., zone: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("client_ip", "client_name", "helo", "local_name", "authenticated", "daemon_name", "tls")
    CLIENT_IP_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    HELO_FIELD_NUMBER: _ClassVar[int]
    LOCAL_NAME_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATED_FIELD_NUMBER: _ClassVar[int]
    DAEMON_NAME_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    client_ip: str
    client_name: str
    helo: str
    local_name: str
    authenticated: str
    daemon_name: str
    tls: TlsInfo
    def __init__(self, client_ip: _Optional[str] = ..., client_name: _Optional[str] = ..., helo: _Optional[str] = ..., local_name: _Optional[str] = ..., authenticated: _Optional[str] = ..., daemon_name: _Optional[str] = ..., tls: _Optional[_Union[TlsInfo, _Mapping]] = ...) -> None: ...

class TlsInfo(_message.Message):
    __slots__ = ("version", "cipher", "subject")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CIPHER_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    version: str
    cipher: str
    subject: str
    def __init__(self, version: _Optional[str] = ..., cipher: _Optional[str] = ..., subject: _Optional[str] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("mail_from", "rcpt_to", "mail_options")
    MAIL_FROM_FIELD_NUMBER: _ClassVar[int]
    RCPT_TO_FIELD_NUMBER: _ClassVar[int]
    MAIL_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    mail_from: str
    rcpt_to: _containers.RepeatedScalarFieldContainer[str]
    mail_options: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, mail_from: _Optional[str] = ..., rcpt_to: _Optional[_Iterable[str]] = ..., mail_options: _Optional[_Iterable[str]] = ...) -> None: ...

class CheckSpfRequest(_message.Message):
    __slots__ = ("client_ip", "mail_from", "helo", "zone")
    CLIENT_IP_FIELD_NUMBER: _ClassVar[int]
    MAIL_FROM_FIELD_NUMBER: _ClassVar[int]
    HELO_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    client_ip: str
    mail_from: str
    helo: str
    zone: _struct_pb2.Struct
    def __init__(self, client_ip: _Optional[str] = ..., mail_from: _Optional[str] = ..., helo: _Optional[str] = ..., zone: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class CheckSpfResponse(_message.Message):
    __slots__ = ("spf", "spf_helo", "questions")
    SPF_FIELD_NUMBER: _ClassVar[int]
    SPF_HELO_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    spf: SpfResult
    spf_helo: SpfResult
    questions: int
    def __init__(self, spf: _Optional[_Union[SpfResult, _Mapping]] = ..., spf_helo: _Optional[_Union[SpfResult, _Mapping]] = ..., questions: _Optional[int] = ...) -> None: ...

class CheckDkimKeyRequest(_message.Message):
    __slots__ = ("domain", "selector", "zone")
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    domain: str
    selector: str
    zone: _struct_pb2.Struct
    def __init__(self, domain: _Optional[str] = ..., selector: _Optional[str] = ..., zone: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class CheckDkimKeyResponse(_message.Message):
    __slots__ = ("name", "record", "kind", "key_bits", "hashes", "testing", "strict", "problem", "detail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEY_BITS_FIELD_NUMBER: _ClassVar[int]
    HASHES_FIELD_NUMBER: _ClassVar[int]
    TESTING_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    record: str
    kind: str
    key_bits: int
    hashes: _containers.RepeatedScalarFieldContainer[str]
    testing: bool
    strict: bool
    problem: DkimProblem
    detail: str
    def __init__(self, name: _Optional[str] = ..., record: _Optional[str] = ..., kind: _Optional[str] = ..., key_bits: _Optional[int] = ..., hashes: _Optional[_Iterable[str]] = ..., testing: _Optional[bool] = ..., strict: _Optional[bool] = ..., problem: _Optional[_Union[DkimProblem, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class DiscoverDmarcRequest(_message.Message):
    __slots__ = ("domain", "zone")
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    domain: str
    zone: _struct_pb2.Struct
    def __init__(self, domain: _Optional[str] = ..., zone: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class DiscoverDmarcResponse(_message.Message):
    __slots__ = ("dmarc",)
    DMARC_FIELD_NUMBER: _ClassVar[int]
    dmarc: DmarcResult
    def __init__(self, dmarc: _Optional[_Union[DmarcResult, _Mapping]] = ...) -> None: ...

class CheckBimiRequest(_message.Message):
    __slots__ = ("domain", "selector", "zone")
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    domain: str
    selector: str
    zone: _struct_pb2.Struct
    def __init__(self, domain: _Optional[str] = ..., selector: _Optional[str] = ..., zone: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class CheckBimiResponse(_message.Message):
    __slots__ = ("bimi",)
    BIMI_FIELD_NUMBER: _ClassVar[int]
    bimi: BimiResult
    def __init__(self, bimi: _Optional[_Union[BimiResult, _Mapping]] = ...) -> None: ...

class SignRequest(_message.Message):
    __slots__ = ("id", "message", "session", "envelope")
    ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    id: str
    message: bytes
    session: Session
    envelope: Envelope
    def __init__(self, id: _Optional[str] = ..., message: _Optional[bytes] = ..., session: _Optional[_Union[Session, _Mapping]] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ...) -> None: ...

class SignResponse(_message.Message):
    __slots__ = ("id", "fields", "signing", "tempfail")
    ID_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    SIGNING_FIELD_NUMBER: _ClassVar[int]
    TEMPFAIL_FIELD_NUMBER: _ClassVar[int]
    id: str
    fields: _containers.RepeatedCompositeFieldContainer[SignatureField]
    signing: Signing
    tempfail: bool
    def __init__(self, id: _Optional[str] = ..., fields: _Optional[_Iterable[_Union[SignatureField, _Mapping]]] = ..., signing: _Optional[_Union[Signing, _Mapping]] = ..., tempfail: _Optional[bool] = ...) -> None: ...

class SignatureField(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class SignUploadRequest(_message.Message):
    __slots__ = ("start", "chunk")
    START_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    start: SignUploadStart
    chunk: bytes
    def __init__(self, start: _Optional[_Union[SignUploadStart, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class SignUploadStart(_message.Message):
    __slots__ = ("id", "session", "envelope")
    ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    id: str
    session: Session
    envelope: Envelope
    def __init__(self, id: _Optional[str] = ..., session: _Optional[_Union[Session, _Mapping]] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ...) -> None: ...

class SignUploadResponse(_message.Message):
    __slots__ = ("id", "fields", "signing", "tempfail")
    ID_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    SIGNING_FIELD_NUMBER: _ClassVar[int]
    TEMPFAIL_FIELD_NUMBER: _ClassVar[int]
    id: str
    fields: _containers.RepeatedCompositeFieldContainer[SignatureField]
    signing: Signing
    tempfail: bool
    def __init__(self, id: _Optional[str] = ..., fields: _Optional[_Iterable[_Union[SignatureField, _Mapping]]] = ..., signing: _Optional[_Union[Signing, _Mapping]] = ..., tempfail: _Optional[bool] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("version", "generation", "digest", "policy", "uptime_seconds", "stopping", "counters", "details")
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STOPPING_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    version: str
    generation: int
    digest: str
    policy: str
    uptime_seconds: float
    stopping: bool
    counters: _containers.ScalarMap[str, float]
    details: _struct_pb2.Struct
    def __init__(self, version: _Optional[str] = ..., generation: _Optional[int] = ..., digest: _Optional[str] = ..., policy: _Optional[str] = ..., uptime_seconds: _Optional[float] = ..., stopping: _Optional[bool] = ..., counters: _Optional[_Mapping[str, float]] = ..., details: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class ReloadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReloadResponse(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("mail_id", "origin", "origin_because", "evidence", "decision", "edits", "authentication_results", "signing", "sealing", "trace", "elapsed_ms")
    MAIL_ID_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATION_RESULTS_FIELD_NUMBER: _ClassVar[int]
    SIGNING_FIELD_NUMBER: _ClassVar[int]
    SEALING_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_MS_FIELD_NUMBER: _ClassVar[int]
    mail_id: str
    origin: Origin
    origin_because: str
    evidence: Evidence
    decision: Decision
    edits: _containers.RepeatedCompositeFieldContainer[Edit]
    authentication_results: str
    signing: Signing
    sealing: Sealing
    trace: _containers.RepeatedCompositeFieldContainer[Step]
    elapsed_ms: float
    def __init__(self, mail_id: _Optional[str] = ..., origin: _Optional[_Union[Origin, str]] = ..., origin_because: _Optional[str] = ..., evidence: _Optional[_Union[Evidence, _Mapping]] = ..., decision: _Optional[_Union[Decision, _Mapping]] = ..., edits: _Optional[_Iterable[_Union[Edit, _Mapping]]] = ..., authentication_results: _Optional[str] = ..., signing: _Optional[_Union[Signing, _Mapping]] = ..., sealing: _Optional[_Union[Sealing, _Mapping]] = ..., trace: _Optional[_Iterable[_Union[Step, _Mapping]]] = ..., elapsed_ms: _Optional[float] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("iprev", "spf_helo", "spf", "dkim", "dmarc", "arc", "bimi")
    IPREV_FIELD_NUMBER: _ClassVar[int]
    SPF_HELO_FIELD_NUMBER: _ClassVar[int]
    SPF_FIELD_NUMBER: _ClassVar[int]
    DKIM_FIELD_NUMBER: _ClassVar[int]
    DMARC_FIELD_NUMBER: _ClassVar[int]
    ARC_FIELD_NUMBER: _ClassVar[int]
    BIMI_FIELD_NUMBER: _ClassVar[int]
    iprev: IprevResult
    spf_helo: SpfResult
    spf: SpfResult
    dkim: DkimResults
    dmarc: DmarcResult
    arc: ArcResult
    bimi: BimiResult
    def __init__(self, iprev: _Optional[_Union[IprevResult, _Mapping]] = ..., spf_helo: _Optional[_Union[SpfResult, _Mapping]] = ..., spf: _Optional[_Union[SpfResult, _Mapping]] = ..., dkim: _Optional[_Union[DkimResults, _Mapping]] = ..., dmarc: _Optional[_Union[DmarcResult, _Mapping]] = ..., arc: _Optional[_Union[ArcResult, _Mapping]] = ..., bimi: _Optional[_Union[BimiResult, _Mapping]] = ...) -> None: ...

class IprevResult(_message.Message):
    __slots__ = ("status", "ip", "name", "problem", "detail")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    status: IprevStatus
    ip: str
    name: str
    problem: IprevProblem
    detail: str
    def __init__(self, status: _Optional[_Union[IprevStatus, str]] = ..., ip: _Optional[str] = ..., name: _Optional[str] = ..., problem: _Optional[_Union[IprevProblem, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class SpfResult(_message.Message):
    __slots__ = ("status", "identity", "domain", "local", "mechanism", "problem", "detail", "explanation", "lookups", "voids", "broad")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    MECHANISM_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    LOOKUPS_FIELD_NUMBER: _ClassVar[int]
    VOIDS_FIELD_NUMBER: _ClassVar[int]
    BROAD_FIELD_NUMBER: _ClassVar[int]
    status: SpfStatus
    identity: SpfIdentity
    domain: str
    local: str
    mechanism: str
    problem: SpfProblem
    detail: str
    explanation: str
    lookups: int
    voids: int
    broad: bool
    def __init__(self, status: _Optional[_Union[SpfStatus, str]] = ..., identity: _Optional[_Union[SpfIdentity, str]] = ..., domain: _Optional[str] = ..., local: _Optional[str] = ..., mechanism: _Optional[str] = ..., problem: _Optional[_Union[SpfProblem, str]] = ..., detail: _Optional[str] = ..., explanation: _Optional[str] = ..., lookups: _Optional[int] = ..., voids: _Optional[int] = ..., broad: _Optional[bool] = ...) -> None: ...

class DkimResults(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[DkimResult]
    def __init__(self, results: _Optional[_Iterable[_Union[DkimResult, _Mapping]]] = ...) -> None: ...

class DkimResult(_message.Message):
    __slots__ = ("status", "domain", "selector", "identity", "algorithm", "key_bits", "signed_headers", "unsigned_critical", "body_length", "unsigned_body_bytes", "testing", "signature_start", "timestamp", "expires", "problem", "detail")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    KEY_BITS_FIELD_NUMBER: _ClassVar[int]
    SIGNED_HEADERS_FIELD_NUMBER: _ClassVar[int]
    UNSIGNED_CRITICAL_FIELD_NUMBER: _ClassVar[int]
    BODY_LENGTH_FIELD_NUMBER: _ClassVar[int]
    UNSIGNED_BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    TESTING_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_START_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    status: DkimStatus
    domain: str
    selector: str
    identity: str
    algorithm: str
    key_bits: int
    signed_headers: _containers.RepeatedScalarFieldContainer[str]
    unsigned_critical: _containers.RepeatedScalarFieldContainer[str]
    body_length: int
    unsigned_body_bytes: int
    testing: bool
    signature_start: str
    timestamp: int
    expires: int
    problem: DkimProblem
    detail: str
    def __init__(self, status: _Optional[_Union[DkimStatus, str]] = ..., domain: _Optional[str] = ..., selector: _Optional[str] = ..., identity: _Optional[str] = ..., algorithm: _Optional[str] = ..., key_bits: _Optional[int] = ..., signed_headers: _Optional[_Iterable[str]] = ..., unsigned_critical: _Optional[_Iterable[str]] = ..., body_length: _Optional[int] = ..., unsigned_body_bytes: _Optional[int] = ..., testing: _Optional[bool] = ..., signature_start: _Optional[str] = ..., timestamp: _Optional[int] = ..., expires: _Optional[int] = ..., problem: _Optional[_Union[DkimProblem, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class DmarcResult(_message.Message):
    __slots__ = ("status", "author", "authors", "record_at", "organizational_domain", "record", "policy", "published", "policy_source", "aligned", "aligned_domains", "testing", "discovery", "queries", "because", "guards", "problem", "detail")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    AUTHORS_FIELD_NUMBER: _ClassVar[int]
    RECORD_AT_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATIONAL_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    POLICY_SOURCE_FIELD_NUMBER: _ClassVar[int]
    ALIGNED_FIELD_NUMBER: _ClassVar[int]
    ALIGNED_DOMAINS_FIELD_NUMBER: _ClassVar[int]
    TESTING_FIELD_NUMBER: _ClassVar[int]
    DISCOVERY_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    GUARDS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    status: DmarcStatus
    author: str
    authors: _containers.RepeatedScalarFieldContainer[str]
    record_at: str
    organizational_domain: str
    record: DmarcRecord
    policy: DmarcPolicy
    published: DmarcPolicy
    policy_source: PolicySource
    aligned: _containers.RepeatedScalarFieldContainer[AlignedBy]
    aligned_domains: _containers.RepeatedScalarFieldContainer[str]
    testing: bool
    discovery: DiscoveryMethod
    queries: _containers.RepeatedCompositeFieldContainer[Query]
    because: _containers.RepeatedScalarFieldContainer[str]
    guards: _containers.RepeatedScalarFieldContainer[str]
    problem: DmarcProblem
    detail: str
    def __init__(self, status: _Optional[_Union[DmarcStatus, str]] = ..., author: _Optional[str] = ..., authors: _Optional[_Iterable[str]] = ..., record_at: _Optional[str] = ..., organizational_domain: _Optional[str] = ..., record: _Optional[_Union[DmarcRecord, _Mapping]] = ..., policy: _Optional[_Union[DmarcPolicy, str]] = ..., published: _Optional[_Union[DmarcPolicy, str]] = ..., policy_source: _Optional[_Union[PolicySource, str]] = ..., aligned: _Optional[_Iterable[_Union[AlignedBy, str]]] = ..., aligned_domains: _Optional[_Iterable[str]] = ..., testing: _Optional[bool] = ..., discovery: _Optional[_Union[DiscoveryMethod, str]] = ..., queries: _Optional[_Iterable[_Union[Query, _Mapping]]] = ..., because: _Optional[_Iterable[str]] = ..., guards: _Optional[_Iterable[str]] = ..., problem: _Optional[_Union[DmarcProblem, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class DmarcRecord(_message.Message):
    __slots__ = ("p", "sp", "np", "adkim", "aspf", "psd", "testing", "fo", "rua", "ruf", "pct", "faults")
    P_FIELD_NUMBER: _ClassVar[int]
    SP_FIELD_NUMBER: _ClassVar[int]
    NP_FIELD_NUMBER: _ClassVar[int]
    ADKIM_FIELD_NUMBER: _ClassVar[int]
    ASPF_FIELD_NUMBER: _ClassVar[int]
    PSD_FIELD_NUMBER: _ClassVar[int]
    TESTING_FIELD_NUMBER: _ClassVar[int]
    FO_FIELD_NUMBER: _ClassVar[int]
    RUA_FIELD_NUMBER: _ClassVar[int]
    RUF_FIELD_NUMBER: _ClassVar[int]
    PCT_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    p: DmarcPolicy
    sp: DmarcPolicy
    np: DmarcPolicy
    adkim: Alignment
    aspf: Alignment
    psd: Psd
    testing: bool
    fo: _containers.RepeatedScalarFieldContainer[str]
    rua: _containers.RepeatedScalarFieldContainer[str]
    ruf: _containers.RepeatedScalarFieldContainer[str]
    pct: int
    faults: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, p: _Optional[_Union[DmarcPolicy, str]] = ..., sp: _Optional[_Union[DmarcPolicy, str]] = ..., np: _Optional[_Union[DmarcPolicy, str]] = ..., adkim: _Optional[_Union[Alignment, str]] = ..., aspf: _Optional[_Union[Alignment, str]] = ..., psd: _Optional[_Union[Psd, str]] = ..., testing: _Optional[bool] = ..., fo: _Optional[_Iterable[str]] = ..., rua: _Optional[_Iterable[str]] = ..., ruf: _Optional[_Iterable[str]] = ..., pct: _Optional[int] = ..., faults: _Optional[_Iterable[str]] = ...) -> None: ...

class Query(_message.Message):
    __slots__ = ("name", "why", "answer")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    name: str
    why: str
    answer: str
    def __init__(self, name: _Optional[str] = ..., why: _Optional[str] = ..., answer: _Optional[str] = ...) -> None: ...

class ArcResult(_message.Message):
    __slots__ = ("status", "sets", "oldest_pass", "problem", "instance", "whole", "dmarc_passed_at", "detail")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SETS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_PASS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    DMARC_PASSED_AT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    status: ArcStatus
    sets: _containers.RepeatedCompositeFieldContainer[ArcSet]
    oldest_pass: int
    problem: ArcProblem
    instance: int
    whole: bool
    dmarc_passed_at: int
    detail: str
    def __init__(self, status: _Optional[_Union[ArcStatus, str]] = ..., sets: _Optional[_Iterable[_Union[ArcSet, _Mapping]]] = ..., oldest_pass: _Optional[int] = ..., problem: _Optional[_Union[ArcProblem, str]] = ..., instance: _Optional[int] = ..., whole: _Optional[bool] = ..., dmarc_passed_at: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class ArcSet(_message.Message):
    __slots__ = ("instance", "sealer", "selector", "cv", "signer", "seal", "signature", "trusted", "authserv_id", "dmarc", "dmarc_from", "remote_ip")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SEALER_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    CV_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    SEAL_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    TRUSTED_FIELD_NUMBER: _ClassVar[int]
    AUTHSERV_ID_FIELD_NUMBER: _ClassVar[int]
    DMARC_FIELD_NUMBER: _ClassVar[int]
    DMARC_FROM_FIELD_NUMBER: _ClassVar[int]
    REMOTE_IP_FIELD_NUMBER: _ClassVar[int]
    instance: int
    sealer: str
    selector: str
    cv: str
    signer: str
    seal: ArcCheck
    signature: ArcCheck
    trusted: bool
    authserv_id: str
    dmarc: str
    dmarc_from: str
    remote_ip: str
    def __init__(self, instance: _Optional[int] = ..., sealer: _Optional[str] = ..., selector: _Optional[str] = ..., cv: _Optional[str] = ..., signer: _Optional[str] = ..., seal: _Optional[_Union[ArcCheck, str]] = ..., signature: _Optional[_Union[ArcCheck, str]] = ..., trusted: _Optional[bool] = ..., authserv_id: _Optional[str] = ..., dmarc: _Optional[str] = ..., dmarc_from: _Optional[str] = ..., remote_ip: _Optional[str] = ...) -> None: ...

class BimiResult(_message.Message):
    __slots__ = ("status", "problem", "detail", "domain", "selector", "selector_source", "selector_ignored", "record", "evidence", "queries")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_SOURCE_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_IGNORED_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    status: BimiStatus
    problem: BimiProblem
    detail: str
    domain: str
    selector: str
    selector_source: SelectorSource
    selector_ignored: SelectorFault
    record: BimiRecord
    evidence: MarkEvidence
    queries: _containers.RepeatedCompositeFieldContainer[BimiQuery]
    def __init__(self, status: _Optional[_Union[BimiStatus, str]] = ..., problem: _Optional[_Union[BimiProblem, str]] = ..., detail: _Optional[str] = ..., domain: _Optional[str] = ..., selector: _Optional[str] = ..., selector_source: _Optional[_Union[SelectorSource, str]] = ..., selector_ignored: _Optional[_Union[SelectorFault, str]] = ..., record: _Optional[_Union[BimiRecord, _Mapping]] = ..., evidence: _Optional[_Union[MarkEvidence, _Mapping]] = ..., queries: _Optional[_Iterable[_Union[BimiQuery, _Mapping]]] = ...) -> None: ...

class BimiRecord(_message.Message):
    __slots__ = ("location", "authority", "preference", "local_parts")
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_PARTS_FIELD_NUMBER: _ClassVar[int]
    location: str
    authority: str
    preference: Preference
    local_parts: LocalParts
    def __init__(self, location: _Optional[str] = ..., authority: _Optional[str] = ..., preference: _Optional[_Union[Preference, str]] = ..., local_parts: _Optional[_Union[LocalParts, _Mapping]] = ...) -> None: ...

class LocalParts(_message.Message):
    __slots__ = ("prefixes",)
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    prefixes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, prefixes: _Optional[_Iterable[str]] = ...) -> None: ...

class MarkEvidence(_message.Message):
    __slots__ = ("status", "problem", "detail", "mark_type", "authority", "issuer", "not_after", "indicator")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    MARK_TYPE_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    INDICATOR_FIELD_NUMBER: _ClassVar[int]
    status: EvidenceStatus
    problem: str
    detail: str
    mark_type: str
    authority: str
    issuer: str
    not_after: _timestamp_pb2.Timestamp
    indicator: Indicator
    def __init__(self, status: _Optional[_Union[EvidenceStatus, str]] = ..., problem: _Optional[str] = ..., detail: _Optional[str] = ..., mark_type: _Optional[str] = ..., authority: _Optional[str] = ..., issuer: _Optional[str] = ..., not_after: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., indicator: _Optional[_Union[Indicator, _Mapping]] = ...) -> None: ...

class Indicator(_message.Message):
    __slots__ = ("location", "svg_sha256", "svg")
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    SVG_SHA256_FIELD_NUMBER: _ClassVar[int]
    SVG_FIELD_NUMBER: _ClassVar[int]
    location: str
    svg_sha256: str
    svg: bytes
    def __init__(self, location: _Optional[str] = ..., svg_sha256: _Optional[str] = ..., svg: _Optional[bytes] = ...) -> None: ...

class BimiQuery(_message.Message):
    __slots__ = ("name", "answer")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    name: str
    answer: str
    def __init__(self, name: _Optional[str] = ..., answer: _Optional[str] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("disposition", "rule", "because", "reply", "tags", "quarantine_reason", "override", "override_comment", "would_have", "passed_over", "ends_session", "policy")
    DISPOSITION_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_REASON_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_COMMENT_FIELD_NUMBER: _ClassVar[int]
    WOULD_HAVE_FIELD_NUMBER: _ClassVar[int]
    PASSED_OVER_FIELD_NUMBER: _ClassVar[int]
    ENDS_SESSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    disposition: Disposition
    rule: str
    because: str
    reply: SmtpReply
    tags: _containers.RepeatedCompositeFieldContainer[Tag]
    quarantine_reason: str
    override: OverrideReason
    override_comment: str
    would_have: _containers.RepeatedCompositeFieldContainer[WouldHave]
    passed_over: _containers.RepeatedCompositeFieldContainer[PassedOver]
    ends_session: bool
    policy: str
    def __init__(self, disposition: _Optional[_Union[Disposition, str]] = ..., rule: _Optional[str] = ..., because: _Optional[str] = ..., reply: _Optional[_Union[SmtpReply, _Mapping]] = ..., tags: _Optional[_Iterable[_Union[Tag, _Mapping]]] = ..., quarantine_reason: _Optional[str] = ..., override: _Optional[_Union[OverrideReason, str]] = ..., override_comment: _Optional[str] = ..., would_have: _Optional[_Iterable[_Union[WouldHave, _Mapping]]] = ..., passed_over: _Optional[_Iterable[_Union[PassedOver, _Mapping]]] = ..., ends_session: _Optional[bool] = ..., policy: _Optional[str] = ...) -> None: ...

class SmtpReply(_message.Message):
    __slots__ = ("code", "enhanced", "text")
    CODE_FIELD_NUMBER: _ClassVar[int]
    ENHANCED_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    code: int
    enhanced: str
    text: str
    def __init__(self, code: _Optional[int] = ..., enhanced: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Tag(_message.Message):
    __slots__ = ("tag_header", "subject_prefix")
    TAG_HEADER_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_PREFIX_FIELD_NUMBER: _ClassVar[int]
    tag_header: TagHeader
    subject_prefix: SubjectPrefix
    def __init__(self, tag_header: _Optional[_Union[TagHeader, _Mapping]] = ..., subject_prefix: _Optional[_Union[SubjectPrefix, _Mapping]] = ...) -> None: ...

class TagHeader(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class SubjectPrefix(_message.Message):
    __slots__ = ("prefix",)
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    def __init__(self, prefix: _Optional[str] = ...) -> None: ...

class WouldHave(_message.Message):
    __slots__ = ("disposition", "rule", "reply")
    DISPOSITION_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    disposition: Disposition
    rule: str
    reply: SmtpReply
    def __init__(self, disposition: _Optional[_Union[Disposition, str]] = ..., rule: _Optional[str] = ..., reply: _Optional[_Union[SmtpReply, _Mapping]] = ...) -> None: ...

class PassedOver(_message.Message):
    __slots__ = ("rule", "because")
    RULE_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    rule: str
    because: str
    def __init__(self, rule: _Optional[str] = ..., because: _Optional[str] = ...) -> None: ...

class Edit(_message.Message):
    __slots__ = ("insert_header", "change_header", "delete_header", "quarantine")
    INSERT_HEADER_FIELD_NUMBER: _ClassVar[int]
    CHANGE_HEADER_FIELD_NUMBER: _ClassVar[int]
    DELETE_HEADER_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_FIELD_NUMBER: _ClassVar[int]
    insert_header: InsertHeader
    change_header: ChangeHeader
    delete_header: DeleteHeader
    quarantine: Quarantine
    def __init__(self, insert_header: _Optional[_Union[InsertHeader, _Mapping]] = ..., change_header: _Optional[_Union[ChangeHeader, _Mapping]] = ..., delete_header: _Optional[_Union[DeleteHeader, _Mapping]] = ..., quarantine: _Optional[_Union[Quarantine, _Mapping]] = ...) -> None: ...

class InsertHeader(_message.Message):
    __slots__ = ("at", "name", "value")
    AT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    at: int
    name: bytes
    value: bytes
    def __init__(self, at: _Optional[int] = ..., name: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...

class ChangeHeader(_message.Message):
    __slots__ = ("name", "nth", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NTH_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: bytes
    nth: int
    value: bytes
    def __init__(self, name: _Optional[bytes] = ..., nth: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...

class DeleteHeader(_message.Message):
    __slots__ = ("name", "nth")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NTH_FIELD_NUMBER: _ClassVar[int]
    name: bytes
    nth: int
    def __init__(self, name: _Optional[bytes] = ..., nth: _Optional[int] = ...) -> None: ...

class Quarantine(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Signing(_message.Message):
    __slots__ = ("signed", "line", "reason", "risks", "detail")
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RISKS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    signed: _containers.RepeatedScalarFieldContainer[str]
    line: str
    reason: str
    risks: _containers.RepeatedScalarFieldContainer[str]
    detail: str
    def __init__(self, signed: _Optional[_Iterable[str]] = ..., line: _Optional[str] = ..., reason: _Optional[str] = ..., risks: _Optional[_Iterable[str]] = ..., detail: _Optional[str] = ...) -> None: ...

class Sealing(_message.Message):
    __slots__ = ("mode", "sealed", "instance", "cv", "reason", "detail")
    MODE_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    CV_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    mode: str
    sealed: str
    instance: int
    cv: str
    reason: str
    detail: str
    def __init__(self, mode: _Optional[str] = ..., sealed: _Optional[str] = ..., instance: _Optional[int] = ..., cv: _Optional[str] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("method", "elapsed_ms", "questions", "remembered", "bug", "limited", "recalled")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_MS_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    REMEMBERED_FIELD_NUMBER: _ClassVar[int]
    BUG_FIELD_NUMBER: _ClassVar[int]
    LIMITED_FIELD_NUMBER: _ClassVar[int]
    RECALLED_FIELD_NUMBER: _ClassVar[int]
    method: str
    elapsed_ms: float
    questions: int
    remembered: int
    bug: bool
    limited: bool
    recalled: bool
    def __init__(self, method: _Optional[str] = ..., elapsed_ms: _Optional[float] = ..., questions: _Optional[int] = ..., remembered: _Optional[int] = ..., bug: _Optional[bool] = ..., limited: _Optional[bool] = ..., recalled: _Optional[bool] = ...) -> None: ...

class Mail(_message.Message):
    __slots__ = ("id", "session", "envelope", "message", "received_at", "body", "origin", "origin_because")
    ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    id: str
    session: Session
    envelope: Envelope
    message: MessageFacts
    received_at: _timestamp_pb2.Timestamp
    body: BodyFacts
    origin: Origin
    origin_because: str
    def __init__(self, id: _Optional[str] = ..., session: _Optional[_Union[Session, _Mapping]] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ..., message: _Optional[_Union[MessageFacts, _Mapping]] = ..., received_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., body: _Optional[_Union[BodyFacts, _Mapping]] = ..., origin: _Optional[_Union[Origin, str]] = ..., origin_because: _Optional[str] = ...) -> None: ...

class MessageFacts(_message.Message):
    __slots__ = ("defects", "authors")
    DEFECTS_FIELD_NUMBER: _ClassVar[int]
    AUTHORS_FIELD_NUMBER: _ClassVar[int]
    defects: _containers.RepeatedCompositeFieldContainer[Defect]
    authors: AuthorHeader
    def __init__(self, defects: _Optional[_Iterable[_Union[Defect, _Mapping]]] = ..., authors: _Optional[_Union[AuthorHeader, _Mapping]] = ...) -> None: ...

class Defect(_message.Message):
    __slots__ = ("kind", "field")
    KIND_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    kind: DefectKind
    field: str
    def __init__(self, kind: _Optional[_Union[DefectKind, str]] = ..., field: _Optional[str] = ...) -> None: ...

class AuthorHeader(_message.Message):
    __slots__ = ("fields", "addresses", "domains", "problem", "detail")
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    DOMAINS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    fields: int
    addresses: _containers.RepeatedScalarFieldContainer[str]
    domains: _containers.RepeatedScalarFieldContainer[str]
    problem: AuthorProblem
    detail: str
    def __init__(self, fields: _Optional[int] = ..., addresses: _Optional[_Iterable[str]] = ..., domains: _Optional[_Iterable[str]] = ..., problem: _Optional[_Union[AuthorProblem, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class BodyFacts(_message.Message):
    __slots__ = ("size", "bare_cr", "bare_lf", "long_line", "eight_bit")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    BARE_CR_FIELD_NUMBER: _ClassVar[int]
    BARE_LF_FIELD_NUMBER: _ClassVar[int]
    LONG_LINE_FIELD_NUMBER: _ClassVar[int]
    EIGHT_BIT_FIELD_NUMBER: _ClassVar[int]
    size: int
    bare_cr: bool
    bare_lf: bool
    long_line: bool
    eight_bit: bool
    def __init__(self, size: _Optional[int] = ..., bare_cr: _Optional[bool] = ..., bare_lf: _Optional[bool] = ..., long_line: _Optional[bool] = ..., eight_bit: _Optional[bool] = ...) -> None: ...
