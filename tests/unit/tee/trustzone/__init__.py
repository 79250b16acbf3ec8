"""TrustZone behind the contract."""
