"""BIMI (draft-brand-indicators-for-message-identification-12): eligibility, record, evidence and indicator."""
