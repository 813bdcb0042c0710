"""authmilter: SPF, DKIM, DMARC and iprev for Postfix and Sendmail in one milter."""
